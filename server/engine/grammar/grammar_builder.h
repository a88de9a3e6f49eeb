// A grammar while it is drawn: nodes, and arrows between them that need a byte, a rule or nothing.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nibble {

// A node of the drawing.
using GrammarNode = int32_t;

// Functions that draw take the node to go on from and return the node they end at, so a sequence is
// a chain of calls and a choice is several chains that are joined by AddEmpty().
//
// The first error sticks, and nothing is drawn any more: whoever draws need not look, but a loop
// whose count comes from a client should. Not thread-safe.
class GrammarBuilder {
 public:
  enum class ArrowKind : uint8_t { kBytes, kRule, kEmpty };
  struct Arrow {
    ArrowKind kind;
    uint8_t first = 0;  // kBytes: from this byte to that one.
    uint8_t last = 0;
    int32_t rule = 0;  // kRule
    GrammarNode target = 0;
    int32_t sibling = -1;  // The node's next arrow.
  };
  struct Rule {
    GrammarNode start;
    GrammarNode end;
  };

  GrammarBuilder();

  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  void Refuse(absl::Status status);

  // Counts work against kCompileWorkMax. Returns ok().
  bool Charge(int64_t work);

  GrammarNode AddNode();
  void AddBytes(GrammarNode from, uint8_t first, uint8_t last, GrammarNode to);
  void AddCall(GrammarNode from, int32_t rule, GrammarNode to);
  void AddEmpty(GrammarNode from, GrammarNode to);

  // A rule that has two nodes and nothing between them yet. It must not match the empty text.
  int32_t AddRule();
  const Rule& rule(int32_t index) const { return rules_[static_cast<size_t>(index)]; }
  int64_t rule_count() const { return std::ssize(rules_); }

  GrammarNode Range(GrammarNode from, uint8_t first, uint8_t last);
  GrammarNode Literal(GrammarNode from, absl::string_view bytes);
  GrammarNode Call(GrammarNode from, int32_t rule);

  // The node's arrows are a list: this is its first, or -1.
  int32_t first_arrow(GrammarNode node) const { return nodes_[static_cast<size_t>(node)]; }
  const Arrow& arrow(int32_t index) const { return arrows_[static_cast<size_t>(index)]; }

 private:
  void AddArrow(GrammarNode from, Arrow arrow);

  absl::Status status_;
  int64_t work_ = 0;
  std::vector<int32_t> nodes_;
  std::vector<Arrow> arrows_;
  std::vector<Rule> rules_;
};

}  // namespace nibble
