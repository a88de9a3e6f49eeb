// The JSON of a request's body, which anybody may have written.

#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/chat/chat_template.h"

namespace nibble {

inline constexpr int kRequestDepthMax = 64;  // Containers in each other.

// Members keep their order; a number without fraction and exponent is an integer.
//
// Errors: INVALID_ARGUMENT that says where: no JSON, not an object, too deep, a member that stands
//   twice.
// Cost: one pass; memory some 40 bytes for each byte of `body`.
absl::StatusOr<TemplateJson> ParseRequestJson(absl::string_view body);

// The value of a JSON text within a request, such as a call's arguments. Errors as above, but it
// may be of any kind.
absl::StatusOr<TemplateJson> ParseNestedJson(absl::string_view text);

}  // namespace nibble
