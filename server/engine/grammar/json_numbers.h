// Numbers as JSON writes them, with a bounded number of digits.

#pragma once

#include <cstdint>

#include "server/engine/grammar/grammar_builder.h"

namespace nibble {

// The largest integer of kIntegerDigitsMax digits.
inline constexpr int64_t kIntegerMax = 999'999'999'999'999'999;

// Digits alone: 0 and -17, but neither -0 nor 1.0 nor 1e3.
//
// Requires: -kIntegerMax <= least, most <= kIntegerMax. Nothing is drawn if least > most.
GrammarNode AddInteger(GrammarBuilder& builder, GrammarNode from, int64_t least, int64_t most);

// Any number.
GrammarNode AddNumber(GrammarBuilder& builder, GrammarNode from);

}  // namespace nibble
