#include "server/grpc_status.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

// The sum bounds the trailer: the message travels twice, once percent-encoded (up to three times
// its size), once within the base64 details; all together stay below 8 KiB.
constexpr size_t kMessageBytesMax = 1000;
constexpr size_t kNameBytesMax = 200;
constexpr size_t kRemedyBytesMax = 160;
constexpr size_t kRemediesMax = 5;

// Length of the valid UTF-8 character of printable text that `text` starts with; 0 if it starts
// with none.
size_t PrintableCharacterBytes(absl::string_view text) {
  const auto byte = [&](size_t index) { return static_cast<unsigned char>(text[index]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    return first >= 0x20 && first != 0x7f ? 1 : 0;
  }
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) {
    return 0;
  }
  for (size_t index = 1; index < length; ++index) {
    if ((byte(index) & 0xc0) != 0x80) {
      return 0;
    }
  }
  const bool overlong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xf0 && byte(1) < 0x90);
  const bool surrogate = first == 0xed && byte(1) >= 0xa0;
  const bool beyond = first == 0xf4 && byte(1) >= 0x90;
  const bool c1_control = first == 0xc2 && byte(1) < 0xa0;
  return overlong || surrogate || beyond || c1_control ? 0 : length;
}

void AddErrorInfo(const absl::Status& status, const ErrorDetails& details,
                  google::rpc::Status& answer) {
  google::rpc::ErrorInfo info;
  info.set_domain(std::string(kErrorDomain));
  info.set_reason(details.reason.empty() ? absl::StatusCodeToString(status.code())
                                         : PrintableText(details.reason, kNameBytesMax));
  auto& metadata = *info.mutable_metadata();
  if (details.needed_bytes.has_value()) {
    metadata["needed_bytes"] = absl::StrCat(*details.needed_bytes);
  }
  if (details.available_bytes.has_value()) {
    metadata["available_bytes"] = absl::StrCat(*details.available_bytes);
  }
  for (size_t index = 0; index < details.remedies.size() && index < kRemediesMax; ++index) {
    metadata[absl::StrCat("remedy_", index + 1)] =
        PrintableText(details.remedies[index], kRemedyBytesMax);
  }
  answer.add_details()->PackFrom(info);
}

void AddQuotaFailure(const ErrorDetails& details, google::rpc::Status& answer) {
  google::rpc::QuotaFailure failure;
  google::rpc::QuotaFailure::Violation& violation = *failure.add_violations();
  violation.set_subject("device memory");
  std::string description = absl::StrCat("needs ", *details.needed_bytes, " bytes, ",
                                         *details.available_bytes, " are available");
  if (!details.remedies.empty()) {
    absl::StrAppend(&description, "; ", PrintableText(details.remedies.front(), kRemedyBytesMax));
  }
  violation.set_description(std::move(description));
  answer.add_details()->PackFrom(failure);
}

void AddBadRequest(const absl::Status& status, const ErrorDetails& details,
                   google::rpc::Status& answer) {
  google::rpc::BadRequest request;
  google::rpc::BadRequest::FieldViolation& violation = *request.add_field_violations();
  violation.set_field(PrintableText(details.field, kNameBytesMax));
  violation.set_description(PrintableText(status.message(), kNameBytesMax));
  answer.add_details()->PackFrom(request);
}

void AddResourceInfo(const ErrorDetails& details, google::rpc::Status& answer) {
  google::rpc::ResourceInfo info;
  info.set_resource_name(PrintableText(details.resource, kNameBytesMax));
  answer.add_details()->PackFrom(info);
}

}  // namespace

std::string PrintableText(absl::string_view text, size_t bytes_max) {
  constexpr absl::string_view kCut = "...";
  std::string printable;
  while (!text.empty()) {
    const size_t length = PrintableCharacterBytes(text);
    absl::StrAppend(&printable, length == 0 ? "?" : text.substr(0, length));
    text.remove_prefix(length == 0 ? 1 : length);
    if (printable.size() > bytes_max) {
      break;
    }
  }
  if (printable.size() <= bytes_max) {
    return printable;
  }
  size_t end = bytes_max - kCut.size();
  while (end > 0 && (static_cast<unsigned char>(printable[end]) & 0xc0) == 0x80) {
    --end;
  }
  return absl::StrCat(absl::string_view(printable).substr(0, end), kCut);
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  const ErrorDetails details = DetailsOf(status);
  google::rpc::Status answer;
  answer.set_code(static_cast<int>(status.code()));  // abseil's codes are gRPC's.
  answer.set_message(PrintableText(status.message(), kMessageBytesMax));
  AddErrorInfo(status, details, answer);
  if (details.needed_bytes.has_value() && details.available_bytes.has_value()) {
    AddQuotaFailure(details, answer);
  }
  if (!details.field.empty()) {
    AddBadRequest(status, details, answer);
  }
  if (!details.resource.empty()) {
    AddResourceInfo(details, answer);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), answer.message(),
                      answer.SerializeAsString());
}

}  // namespace nibble
