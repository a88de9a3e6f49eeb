// What may be written, byte by byte: a pushdown automaton whose every state can reach an end.

#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace nibble {

// On one of these bytes, to that state.
struct GrammarEdge {
  uint8_t first;
  uint8_t last;
  int32_t target;
};

// Without a byte: goes through another rule from its first state, then on from `next`.
struct GrammarCall {
  int32_t callee;
  int32_t next;
};

struct GrammarState {
  int32_t edges_begin;
  int32_t edges_end;
  int32_t calls_begin;
  int32_t calls_end;
  bool accepts;   // The rule may end here.
  uint8_t needs;  // Rules that must still be open at once above this one, at least.
};

// Each rule is a deterministic automaton over bytes and calls; rules are known by their first
// states. Only the choice between calls is not deterministic.
//
// Invariant: edges of a state are sorted and do not overlap; from every state the end of its rule
// can be reached with kOpenRulesMax open rules; no rule calls itself before a byte. Immutable.
class Grammar {
 public:
  Grammar(std::vector<GrammarState> states, std::vector<GrammarEdge> edges,
          std::vector<GrammarCall> calls, int32_t start)
      : states_(std::move(states)),
        edges_(std::move(edges)),
        calls_(std::move(calls)),
        start_(start) {}

  int32_t start() const { return start_; }
  int64_t state_count() const { return std::ssize(states_); }
  const GrammarState& state(int32_t index) const { return states_[static_cast<size_t>(index)]; }

  std::span<const GrammarEdge> edges(const GrammarState& state) const {
    return std::span(edges_).subspan(static_cast<size_t>(state.edges_begin),
                                     static_cast<size_t>(state.edges_end - state.edges_begin));
  }
  std::span<const GrammarCall> calls(const GrammarState& state) const {
    return std::span(calls_).subspan(static_cast<size_t>(state.calls_begin),
                                     static_cast<size_t>(state.calls_end - state.calls_begin));
  }

  // The state behind a byte, or -1. Calls are not looked at.
  int32_t Step(int32_t index, uint8_t byte) const {
    for (const GrammarEdge& edge : edges(state(index))) {
      if (byte <= edge.last) {
        return byte >= edge.first ? edge.target : -1;
      }
    }
    return -1;
  }

 private:
  std::vector<GrammarState> states_;
  std::vector<GrammarEdge> edges_;
  std::vector<GrammarCall> calls_;
  int32_t start_;
};

}  // namespace nibble
