// What an error says beside its sentence: the figures of a refused reservation, the field of a bad
// request, what would help. The layers below the server attach it to an absl::Status without
// knowing any wire format; the server turns it into google.rpc details.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nibble {

struct ErrorDetails {
  // An UPPER_SNAKE_CASE constant that scripts may test: "BUDGET_EXCEEDED", "DEVICE_MEMORY_TAKEN".
  std::string reason;

  // The request field that was wrong, in the names of the .proto files ("quantization.block_size").
  std::string field;

  // The thing it is about: a model's name, a file, a tensor.
  std::string resource;

  // Bytes of device memory, both set or neither.
  std::optional<int64_t> needed_bytes;
  std::optional<int64_t> available_bytes;

  // Sentences that say what would make the request succeed, the simplest first.
  std::vector<std::string> remedies;

  friend bool operator==(const ErrorDetails&, const ErrorDetails&) = default;
};

// Returns `status` with `details` attached. What was attached before is replaced.
//
// Requires: !status.ok().
absl::Status WithDetails(absl::Status status, const ErrorDetails& details);

// Returns the details of `status`; all empty if there are none.
ErrorDetails DetailsOf(const absl::Status& status);

// Returns `status` with what it is about, and a colon, before its message; code and details stay.
//
// Requires: !status.ok().
absl::Status WithSubject(const absl::Status& status, absl::string_view subject);

// INVALID_ARGUMENT that names the request field.
absl::Status BadField(std::string field, absl::string_view message);

}  // namespace nibble
