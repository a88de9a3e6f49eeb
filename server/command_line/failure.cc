#include "server/command_line/failure.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>

#include <cstdio>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/command.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

using Metadata = google::protobuf::Map<std::string, std::string>;

std::optional<int64_t> FindBytes(const Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  int64_t bytes = 0;
  if (found == metadata.end() || !absl::SimpleAtoi(found->second, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

void ReadErrorInfo(const google::rpc::ErrorInfo& info, ErrorDetails& details) {
  details.reason = info.reason();
  details.needed_bytes = FindBytes(info.metadata(), "needed_bytes");
  details.available_bytes = FindBytes(info.metadata(), "available_bytes");
  for (int number = 1;; ++number) {
    const auto remedy = info.metadata().find(absl::StrCat("remedy_", number));
    if (remedy == info.metadata().end()) {
      return;
    }
    details.remedies.push_back(remedy->second);
  }
}

ErrorDetails ReadDetails(const google::rpc::Status& answer) {
  ErrorDetails details;
  for (const google::protobuf::Any& any : answer.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest request;
    google::rpc::ResourceInfo resource;
    if (any.UnpackTo(&info)) {
      ReadErrorInfo(info, details);
    } else if (any.UnpackTo(&request) && request.field_violations_size() > 0) {
      details.field = request.field_violations(0).field();
    } else if (any.UnpackTo(&resource)) {
      details.resource = resource.resource_name();
    }
  }
  return details;
}

}  // namespace

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  absl::Status plain(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status answer;
  if (status.error_details().empty() || !answer.ParseFromString(status.error_details())) {
    return plain;
  }
  return WithDetails(std::move(plain), ReadDetails(answer));
}

std::string RenderFailure(const absl::Status& failure) {
  const ErrorDetails details = DetailsOf(failure);
  std::string text =
      absl::StrCat(absl::StatusCodeToString(failure.code()), ": ", failure.message(), "\n");
  TextTable figures({TextTable::Align::kLeft, TextTable::Align::kRight, TextTable::Align::kRight});
  if (details.needed_bytes.has_value() && details.available_bytes.has_value()) {
    const auto add = [&](const char* what, int64_t bytes) {
      figures.AddRow({what, FormatMemory(bytes), absl::StrCat(FormatExact(bytes), " bytes")});
    };
    add("needed", *details.needed_bytes);
    add("available", *details.available_bytes);
    add("short", *details.needed_bytes - *details.available_bytes);
  }
  absl::StrAppend(&text, figures.Render("  "));
  if (!details.field.empty()) {
    absl::StrAppend(&text, "  field ", details.field, "\n");
  }
  if (!details.remedies.empty()) {
    absl::StrAppend(&text, "  what would help:\n");
  }
  for (const std::string& remedy : details.remedies) {
    absl::StrAppend(&text, "    * ", remedy, "\n");
  }
  return text;
}

int ReportFailure(const absl::Status& failure) {
  std::fputs(RenderFailure(failure).c_str(), stderr);
  return kExitFailed;
}

}  // namespace nibble
