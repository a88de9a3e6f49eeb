#include "server/engine/grammar/determinize.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/node_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/engine/grammar/grammar_limits.h"
#include "server/engine/grammar/prune.h"

namespace nibble {
namespace {

using NodeSet = std::vector<GrammarNode>;  // Sorted.

// Numbers sets of nodes in the order they are met, and gives each its arrows.
class SubsetConstruction {
 public:
  explicit SubsetConstruction(GrammarBuilder& builder) : builder_(builder) {}

  absl::StatusOr<Grammar> Run(int32_t rule) {
    const int32_t start = RuleStart(rule);
    for (size_t next = 0; next < pending_.size() && builder_.ok(); ++next) {
      AddArrows(static_cast<int32_t>(next));
    }
    if (!builder_.ok()) {
      return builder_.status();
    }
    return Prune(builder_, std::move(states_), start);
  }

 private:
  int32_t RuleStart(int32_t rule) {
    const auto found = rule_states_.find(rule);
    if (found != rule_states_.end()) {
      return found->second;
    }
    const int32_t state = StateOf({builder_.rule(rule).start}, rule);
    rule_states_.emplace(rule, state);
    return state;
  }

  // The set with all that is reached without a byte; `nodes` need not be sorted.
  NodeSet Close(NodeSet nodes) {
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
    absl::flat_hash_set<GrammarNode> seen(nodes.begin(), nodes.end());
    for (size_t next = 0; next < nodes.size(); ++next) {
      for (int32_t i = builder_.first_arrow(nodes[next]); i >= 0; i = builder_.arrow(i).sibling) {
        const GrammarBuilder::Arrow& arrow = builder_.arrow(i);
        if (arrow.kind == GrammarBuilder::ArrowKind::kEmpty && seen.insert(arrow.target).second) {
          nodes.push_back(arrow.target);
        }
        if (!builder_.Charge(1)) {
          return nodes;
        }
      }
    }
    std::sort(nodes.begin(), nodes.end());
    return nodes;
  }

  int32_t StateOf(NodeSet nodes, int32_t rule) {
    nodes = Close(std::move(nodes));
    if (!builder_.Charge(std::ssize(nodes))) {
      return 0;
    }
    const auto [found, is_new] = numbers_.try_emplace(std::move(nodes), std::ssize(states_));
    if (is_new) {
      const NodeSet& set = found->first;
      const bool accepts = std::binary_search(set.begin(), set.end(), builder_.rule(rule).end);
      states_.push_back({.accepts = accepts, .edges = {}, .calls = {}});
      pending_.push_back({.nodes = &set, .rule = rule});
      if (std::ssize(states_) > kGrammarStatesMax) {
        builder_.Refuse(absl::InvalidArgumentError(
            absl::StrCat("JSON schema: its grammar has more than ", kGrammarStatesMax, " states")));
      }
    }
    return static_cast<int32_t>(found->second);
  }

  void AddArrows(int32_t state) {
    const auto [nodes, rule] = pending_[static_cast<size_t>(state)];
    std::array<bool, 257> begins = {};  // Whether a byte is where some arrow begins or has ended.
    std::map<int32_t, NodeSet> calls;
    std::vector<GrammarBuilder::Arrow> byte_arrows;
    for (const GrammarNode node : *nodes) {
      for (int32_t i = builder_.first_arrow(node); i >= 0; i = builder_.arrow(i).sibling) {
        const GrammarBuilder::Arrow& arrow = builder_.arrow(i);
        if (arrow.kind == GrammarBuilder::ArrowKind::kBytes) {
          begins[arrow.first] = true;
          begins[arrow.last + size_t{1}] = true;
          byte_arrows.push_back(arrow);
        } else if (arrow.kind == GrammarBuilder::ArrowKind::kRule) {
          calls[arrow.rule].push_back(arrow.target);
        }
      }
    }
    AddEdges(state, rule, begins, byte_arrows);
    for (auto& [callee, targets] : calls) {
      const int32_t callee_state = RuleStart(callee);
      const int32_t next = StateOf(std::move(targets), rule);
      states_[static_cast<size_t>(state)].calls.push_back({callee_state, next});
    }
  }

  void AddEdges(int32_t state, int32_t rule, const std::array<bool, 257>& begins,
                const std::vector<GrammarBuilder::Arrow>& arrows) {
    std::map<int, NodeSet> targets;  // By the byte where a run of equal bytes begins.
    for (const GrammarBuilder::Arrow& arrow : arrows) {
      for (size_t byte = arrow.first; byte <= arrow.last; ++byte) {
        if (begins[byte]) {
          targets[static_cast<int>(byte)].push_back(arrow.target);
        }
      }
      if (!builder_.Charge(arrow.last - arrow.first + 1)) {
        return;
      }
    }
    for (auto& [first, nodes] : targets) {
      size_t end = static_cast<size_t>(first) + 1;
      while (!begins[end]) {
        ++end;
      }
      const int32_t target = StateOf(std::move(nodes), rule);
      std::vector<GrammarEdge>& edges = states_[static_cast<size_t>(state)].edges;
      const auto last = static_cast<uint8_t>(end - 1);
      if (!edges.empty() && edges.back().target == target && edges.back().last + 1 == first) {
        edges.back().last = last;
      } else {
        edges.push_back({static_cast<uint8_t>(first), last, target});
      }
    }
  }

  struct Pending {
    const NodeSet* nodes;  // A key of numbers_, which keeps its place.
    int32_t rule;
  };

  GrammarBuilder& builder_;
  std::vector<DraftState> states_;
  std::vector<Pending> pending_;  // One for each state.
  absl::node_hash_map<NodeSet, int64_t> numbers_;
  absl::flat_hash_map<int32_t, int32_t> rule_states_;
};

}  // namespace

absl::StatusOr<Grammar> Determinize(GrammarBuilder& builder, int32_t rule) {
  return SubsetConstruction(builder).Run(rule);
}

GrammarNode AddProduct(GrammarBuilder& builder, GrammarNode from, const Grammar& left,
                       const Grammar& right, Agreement agreement) {
  using Pair = std::pair<int32_t, int32_t>;  // A state of each; -1: right is lost.
  const GrammarNode end = builder.AddNode();
  absl::flat_hash_map<Pair, GrammarNode> nodes;
  std::vector<Pair> pending;
  const auto node_of = [&](Pair pair) {
    const auto [found, is_new] = nodes.try_emplace(pair, 0);
    if (is_new) {
      found->second = builder.AddNode();
      pending.push_back(pair);
    }
    return found->second;
  };
  builder.AddEmpty(from, node_of({left.start(), right.start()}));
  while (!pending.empty() && builder.ok()) {
    const Pair pair = pending.back();
    pending.pop_back();
    const GrammarNode node = nodes[pair];
    const GrammarState& state = left.state(pair.first);
    const bool right_accepts = pair.second >= 0 && right.state(pair.second).accepts;
    if (state.accepts && right_accepts == (agreement == Agreement::kBoth)) {
      builder.AddEmpty(node, end);
    }
    for (const GrammarEdge& edge : left.edges(state)) {
      builder.Charge((edge.last - edge.first) / 4);
      int byte = edge.first;
      while (byte <= edge.last && builder.ok()) {
        const int32_t other =
            pair.second < 0 ? -1 : right.Step(pair.second, static_cast<uint8_t>(byte));
        int last = byte;
        while (
            last < edge.last &&
            (pair.second < 0 || right.Step(pair.second, static_cast<uint8_t>(last + 1)) == other)) {
          ++last;
        }
        if (other >= 0 || agreement == Agreement::kLeftOnly) {
          builder.AddBytes(node, static_cast<uint8_t>(byte), static_cast<uint8_t>(last),
                           node_of({edge.target, other}));
        }
        byte = last + 1;
      }
    }
  }
  return end;
}

}  // namespace nibble
