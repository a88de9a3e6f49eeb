// Values as Python's str() and repr() show them.

#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

// str(value): what print shows. Strings as they are, None, True, 1.0, ['a', 1].
//
// Errors: in the run if it becomes too long.
std::string ToText(Run& run, const Value& value);

// The same as a value; a string is shared, not copied.
Value ToTextValue(Run& run, const Value& value);

// repr(value): strings in quotes too.
std::string ToRepr(Run& run, const Value& value);

// A text whose methods were asked for a text: markup stays markup.
Value LikeIts(Run& run, const Value& original, const Value& made);

// `text` with what HTML takes for its own replaced.
//
// Errors: in the run if it becomes too long, and gives "".
std::string EscapedForHtml(Run& run, absl::string_view text);

// repr() of a float: "1.0", "1e-05", "inf".
std::string FloatToText(double value);

}  // namespace nibble::jinja
