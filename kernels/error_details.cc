#include "kernels/error_details.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace nibble {
namespace {

constexpr absl::string_view kPayloadType = "nibble/error_details";

void AppendLine(std::string& text, absl::string_view key, absl::string_view value) {
  absl::StrAppend(&text, key, "=", absl::CEscape(value), "\n");
}

void ReadLine(absl::string_view key, std::string value, ErrorDetails& details) {
  int64_t number = 0;
  if (key == "reason") {
    details.reason = std::move(value);
  } else if (key == "field") {
    details.field = std::move(value);
  } else if (key == "resource") {
    details.resource = std::move(value);
  } else if (key == "needed" && absl::SimpleAtoi(value, &number)) {
    details.needed_bytes = number;
  } else if (key == "available" && absl::SimpleAtoi(value, &number)) {
    details.available_bytes = number;
  } else if (key == "remedy") {
    details.remedies.push_back(std::move(value));
  }
}

}  // namespace

// A payload is a byte string, so the fields travel as escaped key=value lines; they never leave the
// process in this form.
absl::Status WithDetails(absl::Status status, const ErrorDetails& details) {
  std::string text;
  AppendLine(text, "reason", details.reason);
  AppendLine(text, "field", details.field);
  AppendLine(text, "resource", details.resource);
  if (details.needed_bytes.has_value()) {
    AppendLine(text, "needed", absl::StrCat(*details.needed_bytes));
  }
  if (details.available_bytes.has_value()) {
    AppendLine(text, "available", absl::StrCat(*details.available_bytes));
  }
  for (const std::string& remedy : details.remedies) {
    AppendLine(text, "remedy", remedy);
  }
  status.SetPayload(kPayloadType, absl::Cord(text));
  return status;
}

ErrorDetails DetailsOf(const absl::Status& status) {
  ErrorDetails details;
  const auto payload = status.GetPayload(kPayloadType);
  if (!payload.has_value()) {
    return details;
  }
  const std::string text(*payload);
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits('=', 1));
    std::string value;
    if (absl::CUnescape(parts.second, &value)) {
      ReadLine(parts.first, std::move(value), details);
    }
  }
  return details;
}

absl::Status WithSubject(const absl::Status& status, absl::string_view subject) {
  absl::Status named(status.code(), absl::StrCat(subject, ": ", status.message()));
  status.ForEachPayload([&named](absl::string_view type, const absl::Cord& payload) {
    named.SetPayload(type, payload);
  });
  return named;
}

absl::Status BadField(std::string field, absl::string_view message) {
  ErrorDetails details;
  details.reason = "INVALID_FIELD";
  details.field = std::move(field);
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(details.field, ": ", message));
  return WithDetails(std::move(status), details);
}

}  // namespace nibble
