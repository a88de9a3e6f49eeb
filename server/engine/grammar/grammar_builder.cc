#include "server/engine/grammar/grammar_builder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/grammar/grammar_limits.h"

namespace nibble {

// There is always a node, so that drawing after an error has something to return.
GrammarBuilder::GrammarBuilder() : nodes_{-1} {}

void GrammarBuilder::Refuse(absl::Status status) {
  if (status_.ok()) {
    status_ = std::move(status);
  }
}

bool GrammarBuilder::Charge(int64_t work) {
  work_ += work;
  if (work_ > kCompileWorkMax) {
    Refuse(absl::InvalidArgumentError(
        absl::StrCat("JSON schema: takes more than ", kCompileWorkMax, " steps to compile")));
  }
  return ok();
}

GrammarNode GrammarBuilder::AddNode() {
  if (std::ssize(nodes_) >= kGrammarNodesMax) {
    Refuse(absl::InvalidArgumentError(
        absl::StrCat("JSON schema: its grammar has more than ", kGrammarNodesMax, " nodes")));
  }
  if (!ok()) {
    return 0;
  }
  nodes_.push_back(-1);
  return static_cast<GrammarNode>(nodes_.size() - 1);
}

void GrammarBuilder::AddArrow(GrammarNode from, Arrow arrow) {
  if (!Charge(1)) {
    return;
  }
  int32_t& first = nodes_[static_cast<size_t>(from)];
  arrow.sibling = first;
  first = static_cast<int32_t>(arrows_.size());
  arrows_.push_back(arrow);
}

void GrammarBuilder::AddBytes(GrammarNode from, uint8_t first, uint8_t last, GrammarNode to) {
  if (first <= last) {
    AddArrow(from, {.kind = ArrowKind::kBytes, .first = first, .last = last, .target = to});
  }
}

void GrammarBuilder::AddCall(GrammarNode from, int32_t rule, GrammarNode to) {
  AddArrow(from, {.kind = ArrowKind::kRule, .rule = rule, .target = to});
}

void GrammarBuilder::AddEmpty(GrammarNode from, GrammarNode to) {
  AddArrow(from, {.kind = ArrowKind::kEmpty, .target = to});
}

int32_t GrammarBuilder::AddRule() {
  const GrammarNode start = AddNode();
  rules_.push_back({.start = start, .end = AddNode()});
  return static_cast<int32_t>(rules_.size() - 1);
}

GrammarNode GrammarBuilder::Range(GrammarNode from, uint8_t first, uint8_t last) {
  const GrammarNode to = AddNode();
  AddBytes(from, first, last, to);
  return to;
}

GrammarNode GrammarBuilder::Literal(GrammarNode from, absl::string_view bytes) {
  for (const char c : bytes) {
    from = Range(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c));
  }
  return from;
}

GrammarNode GrammarBuilder::Call(GrammarNode from, int32_t rule) {
  const GrammarNode to = AddNode();
  AddCall(from, rule, to);
  return to;
}

}  // namespace nibble
