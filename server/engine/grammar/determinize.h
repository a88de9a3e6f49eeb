// From a drawing to the automaton that is run: sets of nodes become states.

#pragma once

#include "absl/status/statusor.h"
#include "server/engine/grammar/grammar.h"
#include "server/engine/grammar/grammar_builder.h"

namespace nibble {

// Makes a grammar of the rules that `rule` leads to, without the states from which no end can be
// reached.
//
// Errors: those of the builder; INVALID_ARGUMENT beyond a limit, if nothing can be written, or if a
//   rule calls itself before a byte.
// Cost: bounded by kCompileWorkMax, of which the builder counts what is used.
absl::StatusOr<Grammar> Determinize(GrammarBuilder& builder, int32_t rule);

// Draws what `left` accepts and `right` accepts, too, or does not accept.
//
// Requires: neither has calls.
enum class Agreement { kBoth, kLeftOnly };
GrammarNode AddProduct(GrammarBuilder& builder, GrammarNode from, const Grammar& left,
                       const Grammar& right, Agreement agreement);

}  // namespace nibble
