// A request's JSON as values of a template.

#pragma once

#include "nlohmann/json.hpp"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

// Errors: in the run: INVALID_ARGUMENT for strings that are not UTF-8 and integers beyond 63 bits,
//   RESOURCE_EXHAUSTED for what is too deep or too large.
Value ValueFromJson(Run& run, const nlohmann::ordered_json& json);

}  // namespace nibble::jinja
