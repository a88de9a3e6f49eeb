// Leaves of an automaton only what can be brought to an end.

#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/grammar/grammar.h"
#include "server/engine/grammar/grammar_builder.h"

namespace nibble {

struct DraftState {
  bool accepts;
  std::vector<GrammarEdge> edges;
  std::vector<GrammarCall> calls;
};

// Finds how many open rules each state needs, removes what needs more than kOpenRulesMax or has no
// end, and packs the rest. Work is counted by `builder`.
//
// Errors: INVALID_ARGUMENT if nothing is left, or if a rule calls itself before a byte.
absl::StatusOr<Grammar> Prune(GrammarBuilder& builder, std::vector<DraftState> states,
                              int32_t start);

}  // namespace nibble
