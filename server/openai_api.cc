#include "server/openai_api.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "server/openai_errors.h"
#include "server/openai_exchange.h"
#include "server/openai_models.h"

namespace nibble {
namespace {

// Requests that wait for the preparing thread; more are refused. Each has a body.
constexpr size_t kPreparingMax = 256;
constexpr size_t kPathShown = 200;  // Of an unknown path, in the error.
constexpr absl::string_view kModels = "/v1/models";
constexpr absl::string_view kCompletions = "/v1/completions";
constexpr absl::string_view kChatCompletions = "/v1/chat/completions";

// An answer that is there at once.
class ReadyExchange final : public HttpExchange {
 public:
  explicit ReadyExchange(HttpAnswer answer) : answer_(std::move(answer)) {}

  std::optional<HttpPart> Next() override { return HttpPart{std::move(answer_), true}; }

 private:
  HttpAnswer answer_;
};

std::shared_ptr<HttpExchange> Ready(HttpAnswer answer) {
  return std::make_shared<ReadyExchange>(std::move(answer));
}

HttpAnswer NotAllowed(absl::string_view path, absl::string_view allow) {
  HttpAnswer answer =
      HttpError(405, "invalid_request_error", absl::StrCat(path, " takes ", allow, " alone"));
  answer.allow = std::string(allow);
  return answer;
}

// A web page may send anything but this without asking first, and so reach a server that listens
// for this machine alone.
bool IsJson(absl::string_view content_type) {
  return absl::EqualsIgnoreCase(
      absl::StripAsciiWhitespace(content_type.substr(0, content_type.find(';'))),
      "application/json");
}

HttpAnswer JsonAnswer(const TemplateJson& json) {
  return {.content_type = "application/json",
          .body = json.dump(-1, ' ', false, TemplateJson::error_handler_t::replace)};
}

}  // namespace

OpenAiApi::OpenAiApi(ModelRegistry& registry, Logger& logger)
    : registry_(registry), logger_(logger), started_(absl::Now()), preparer_(kPreparingMax) {}

std::shared_ptr<HttpExchange> OpenAiApi::Start(HttpRequest request, std::function<void()> wake) {
  const absl::string_view target = request.target;
  const absl::string_view path = target.substr(0, target.find('?'));
  if (path == kModels || absl::StartsWith(path, absl::StrCat(kModels, "/"))) {
    const bool is_read = request.method == "GET" || request.method == "HEAD";
    return Ready(is_read ? AnswerModels(path) : NotAllowed(path, "GET, HEAD"));
  }
  if (path != kCompletions && path != kChatCompletions) {
    return Ready(HttpError(404, "invalid_request_error",
                           absl::StrCat("no such path: ", path.substr(0, kPathShown))));
  }
  if (request.method != "POST") {
    return Ready(NotAllowed(path, "POST"));
  }
  if (!IsJson(request.content_type)) {
    return Ready(HttpError(415, "invalid_request_error",
                           "expected the header Content-Type: application/json"));
  }
  return Generate(std::move(request), path == kChatCompletions, std::move(wake));
}

HttpAnswer OpenAiApi::AnswerModels(absl::string_view path) const {
  const std::shared_ptr<const StateSnapshot> snapshot = registry_.Snapshot();
  if (!absl::ConsumePrefix(&path, absl::StrCat(kModels, "/"))) {
    return JsonAnswer(ListOpenAiModels(*snapshot, started_));
  }
  const absl::StatusOr<std::string> name = DecodePath(path);
  if (!name.ok()) {
    return OpenAiError(name.status());
  }
  const absl::StatusOr<TemplateJson> model = FindOpenAiModel(*snapshot, *name, started_);
  return model.ok() ? JsonAnswer(*model) : OpenAiError(model.status());
}

std::shared_ptr<HttpExchange> OpenAiApi::Generate(HttpRequest request, bool is_chat,
                                                  std::function<void()> wake) {
  auto exchange = std::make_shared<OpenAiExchange>(registry_, logger_, is_chat,
                                                   std::move(request.body), std::move(wake));
  // A client that is gone before its turn has taken the exchange with it.
  const auto prepare = [weak = std::weak_ptr(exchange)] {
    if (const std::shared_ptr<OpenAiExchange> alive = weak.lock()) {
      alive->Prepare();
    }
  };
  switch (preparer_.Post(prepare)) {
    case TaskThread::Posted::kYes:
      break;
    case TaskThread::Posted::kFull:
      exchange->Fail(absl::ResourceExhaustedError("too many prompts wait; try again later"));
      break;
    case TaskThread::Posted::kStopped:
      exchange->Fail(absl::UnavailableError("the daemon shuts down"));
      break;
  }
  return exchange;
}

}  // namespace nibble
