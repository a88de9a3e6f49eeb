#include "server/openai_errors.h"

#include <string>

#include "absl/strings/ascii.h"
#include "kernels/error_details.h"
#include "server/model_registry.h"

namespace nibble {
namespace {

constexpr size_t kMessageBytesMax = 1000;  // As of an error over gRPC.
// What is full or unavailable changes with every request that ends; one second is the least that
// the header can say.
constexpr absl::Duration kRetryAfter = absl::Seconds(1);

// What is worth asking again later is a 503, so that OpenAI's clients do.
int HttpStatus(const absl::Status& status) {
  if (DetailsOf(status).reason == kModelLoading) {
    return 503;
  }
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

absl::string_view TypeOf(int http_status) {
  return http_status == 429  ? "rate_limit_error"
         : http_status < 500 ? "invalid_request_error"
                             : "server_error";
}

}  // namespace

TemplateJson OpenAiErrorJson(const absl::Status& status) {
  const ErrorDetails details = DetailsOf(status);
  TemplateJson error = TemplateJson::object();
  error["message"] = std::string(status.message().substr(0, kMessageBytesMax));
  error["type"] = std::string(TypeOf(HttpStatus(status)));
  error["param"] = details.field.empty() ? TemplateJson(nullptr) : TemplateJson(details.field);
  error["code"] = details.reason.empty() ? TemplateJson(nullptr)
                                         : TemplateJson(absl::AsciiStrToLower(details.reason));
  TemplateJson json = TemplateJson::object();
  json["error"] = std::move(error);
  return json;
}

HttpAnswer OpenAiError(const absl::Status& status) {
  HttpAnswer answer;
  answer.status = HttpStatus(status);
  answer.content_type = "application/json";
  answer.body =
      OpenAiErrorJson(status).dump(-1, ' ', false, TemplateJson::error_handler_t::replace);
  if (answer.status == 429 || answer.status == 503) {
    answer.retry_after = kRetryAfter;
  }
  return answer;
}

}  // namespace nibble
