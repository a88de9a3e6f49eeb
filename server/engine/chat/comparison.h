// Python's ==, < and `in`.

#pragma once

#include "server/engine/chat/syntax_tree.h"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

// Never an error, but for the steps of a long comparison.
bool Equals(Run& run, const Value& left, const Value& right);

// -1, 0 or 1; numbers with numbers, strings with strings by code points, lists with lists.
// 2 if they are not in any order (NaN).
//
// Errors: in the run, for anything else.
int Compare(Run& run, const Value& left, const Value& right);

// left == right, left < right, left in right.
//
// Errors: in the run, as those of the functions here.
bool Relate(Run& run, Relation relation, const Value& left, const Value& right);

// Whether `container` has `item`: a key, an item, a part of a string.
//
// Errors: in the run if it is no container.
bool Contains(Run& run, const Value& container, const Value& item);

// Whether it can be a key of a dict.
bool IsHashable(Run& run, const Value& value);

}  // namespace nibble::jinja
