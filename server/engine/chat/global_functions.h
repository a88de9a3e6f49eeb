// The functions that every template has: range, dict, namespace, cycler and joiner of Jinja,
// raise_exception and strftime_now of transformers.

#pragma once

#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

std::vector<std::pair<absl::string_view, Value>> MakeGlobals(Run& run);

}  // namespace nibble::jinja
