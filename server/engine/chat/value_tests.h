// The tests: what stands behind an `is`.

#pragma once

#include "absl/strings/string_view.h"
#include "server/engine/chat/interpreter.h"

namespace nibble::jinja {

// Errors of a test are in the interpreter's run.
using TestFunction = bool (*)(Interpreter& interpreter, const Value& input,
                              const Arguments& arguments);

// Null if there is none of this name.
TestFunction FindTest(absl::string_view name);

}  // namespace nibble::jinja
