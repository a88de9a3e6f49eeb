// From tokens to a syntax tree.

#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/chat/syntax_tree.h"

namespace nibble::jinja {

// The statements of a whole template. Names of filters and tests are not looked at: one that does
// not exist is an error when it is used.
//
// Errors: INVALID_ARGUMENT with the line, if it is no UTF-8, too long, or not of the language;
//   RESOURCE_EXHAUSTED if it is nested too deep.
absl::StatusOr<Body> ParseTemplate(absl::string_view source);

}  // namespace nibble::jinja
