#include "server/engine/grammar/prune.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/grammar/grammar_limits.h"

namespace nibble {
namespace {

constexpr int kNoEnd = kOpenRulesMax + 1;

int NeedsOfCall(const std::vector<int>& needs, const GrammarCall& call) {
  return std::max(needs[static_cast<size_t>(call.callee)] + 1,
                  needs[static_cast<size_t>(call.next)]);
}

// The least number of rules open at once above a state's own on some way to its rule's end.
std::vector<int> FindNeeds(GrammarBuilder& builder, const std::vector<DraftState>& states) {
  std::vector<int> needs(states.size(), kNoEnd);
  bool changed = true;
  while (changed && builder.ok()) {
    changed = false;
    // Backwards, because states mostly lead to later ones.
    for (size_t i = states.size(); i-- > 0;) {
      int least = states[i].accepts ? 0 : needs[i];
      for (const GrammarEdge& edge : states[i].edges) {
        least = std::min(least, needs[static_cast<size_t>(edge.target)]);
      }
      for (const GrammarCall& call : states[i].calls) {
        least = std::min(least, NeedsOfCall(needs, call));
      }
      changed = changed || least < needs[i];
      needs[i] = least;
    }
    builder.Charge(std::ssize(states));
  }
  return needs;
}

// Whether following calls alone can lead from a state back to it.
bool CallsItself(const std::vector<DraftState>& states) {
  enum class Mark : uint8_t { kNew, kOpen, kDone };
  std::vector<Mark> marks(states.size(), Mark::kNew);
  std::vector<std::pair<int32_t, size_t>>
      path;  // A state, and how many of its calls were followed.
  for (int32_t first = 0; first < std::ssize(states); ++first) {
    if (marks[static_cast<size_t>(first)] == Mark::kNew) {
      path.emplace_back(first, 0);
    }
    while (!path.empty()) {
      auto& [state, followed] = path.back();
      const std::vector<GrammarCall>& calls = states[static_cast<size_t>(state)].calls;
      marks[static_cast<size_t>(state)] = Mark::kOpen;
      if (followed == calls.size()) {
        marks[static_cast<size_t>(state)] = Mark::kDone;
        path.pop_back();
        continue;
      }
      const int32_t callee = calls[followed++].callee;
      if (marks[static_cast<size_t>(callee)] == Mark::kOpen) {
        return true;
      }
      if (marks[static_cast<size_t>(callee)] == Mark::kNew) {
        path.emplace_back(callee, 0);
      }
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<Grammar> Prune(GrammarBuilder& builder, std::vector<DraftState> states,
                              int32_t start) {
  if (CallsItself(states)) {
    return absl::InvalidArgumentError(
        "JSON schema: a $ref leads to itself without an object or array between");
  }
  const std::vector<int> needs = FindNeeds(builder, states);
  if (!builder.ok()) {
    return builder.status();
  }
  if (needs[static_cast<size_t>(start)] >= kNoEnd) {
    return absl::InvalidArgumentError(absl::StrCat(
        "JSON schema: no value satisfies it, or none with at most ", kOpenRulesMax, " levels"));
  }
  std::vector<int32_t> places(states.size(), -1);
  int32_t kept = 0;
  for (size_t i = 0; i < states.size(); ++i) {
    if (needs[i] < kNoEnd) {
      places[i] = kept++;
    }
  }
  const auto place = [&](int32_t state) { return places[static_cast<size_t>(state)]; };
  std::vector<GrammarState> packed;
  std::vector<GrammarEdge> edges;
  std::vector<GrammarCall> calls;
  for (size_t i = 0; i < states.size(); ++i) {
    if (places[i] < 0) {
      continue;
    }
    const auto edges_begin = static_cast<int32_t>(edges.size());
    const auto calls_begin = static_cast<int32_t>(calls.size());
    for (const GrammarEdge& edge : states[i].edges) {
      if (place(edge.target) >= 0) {
        edges.push_back({edge.first, edge.last, place(edge.target)});
      }
    }
    for (const GrammarCall& call : states[i].calls) {
      if (NeedsOfCall(needs, call) < kNoEnd) {
        calls.push_back({place(call.callee), place(call.next)});
      }
    }
    packed.push_back({.edges_begin = edges_begin,
                      .edges_end = static_cast<int32_t>(edges.size()),
                      .calls_begin = calls_begin,
                      .calls_end = static_cast<int32_t>(calls.size()),
                      .accepts = states[i].accepts,
                      .needs = static_cast<uint8_t>(needs[i])});
  }
  return Grammar(std::move(packed), std::move(edges), std::move(calls), place(start));
}

}  // namespace nibble
