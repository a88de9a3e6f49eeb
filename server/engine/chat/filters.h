// The filters: what stands behind a `|`.

#pragma once

#include "absl/strings/string_view.h"
#include "server/engine/chat/interpreter.h"

namespace nibble::jinja {

// Errors of a filter are in the interpreter's run.
using FilterFunction = Value (*)(Interpreter& interpreter, const Value& input,
                                 const Arguments& arguments);

// Null if there is none of this name.
FilterFunction FindFilter(absl::string_view name);

// By what they are about; each in a file of its own.
FilterFunction FindTextFilter(absl::string_view name);
FilterFunction FindNumberFilter(absl::string_view name);
FilterFunction FindSequenceFilter(absl::string_view name);
FilterFunction FindSelectionFilter(absl::string_view name);
FilterFunction FindOrderFilter(absl::string_view name);

// item.a.b.0 for "a.b.0", as the filters with an `attribute` take it; the item itself for none.
Value FollowPath(Interpreter& interpreter, const Value& item, const Value* path,
                 const Value* otherwise = nullptr);

}  // namespace nibble::jinja
