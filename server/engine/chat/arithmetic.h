// + - * / // % ** as Python has them.

#pragma once

#include "server/engine/chat/syntax_tree.h"

namespace nibble::jinja {

// Of numbers; + also of strings, lists and tuples; * also of those with an integer; % also of a
// string with what it formats.
//
// Errors: in the run, for other types, division by zero, and integers beyond 63 bits.
Value Calculate(Run& run, Arithmetic op, const Value& left, const Value& right);

// -value.
Value Negate(Run& run, const Value& value);

// A slice of a string, list or tuple, with Python's defaults for parts that are None.
//
// Requires: `value` is a string, or a sequence that is no generator and no view of a dict.
//
// Errors: in the run, if a part is neither None nor an integer, or the step is 0.
Value SliceOf(Run& run, const Value& value, const Value& start, const Value& stop,
              const Value& step);

}  // namespace nibble::jinja
