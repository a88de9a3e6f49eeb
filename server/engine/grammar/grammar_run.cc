#include "server/engine/grammar/grammar_run.h"

#include <algorithm>
#include <array>
#include <functional>

#include "server/engine/grammar/grammar_limits.h"

namespace nibble {
namespace {

// Situations that a run knows. Within one walk over a vocabulary no more than these become known:
// bytes that lead further are refused until Forget() is called, which costs tokens of a schema
// whose text looks different after every one of them.
constexpr int64_t kSituationsMax = 32'768;

// Rows of 1 KiB. Strings of a schema take some ten each.
constexpr size_t kRowsMax = 4096;

// Adds up to kStacksMax numbers. Returns whether any is new.
template <typename Numbers>
bool AddAll(std::set<int32_t>& set, const Numbers& numbers) {
  const size_t before = set.size();
  for (const int32_t number : numbers) {
    if (std::ssize(set) < kStacksMax) {
      set.insert(number);
    }
  }
  return set.size() > before;
}

}  // namespace

GrammarRun::GrammarRun(const Grammar& grammar) : grammar_(&grammar) {
  start_ = SituationOf(Close({{grammar.start(), {-1}}}));
}

int32_t GrammarRun::OpenAbove(const std::set<int32_t>& belows) const {
  int32_t open = 0;
  for (const int32_t below : belows) {
    open = std::max(open, below < 0 ? 0 : frames_[static_cast<size_t>(below)].open + 1);
  }
  return open;
}

int32_t GrammarRun::FrameOf(int32_t state, const std::set<int32_t>& belows) {
  const auto [set, is_new_set] = set_numbers_.try_emplace(FrameSet(belows.begin(), belows.end()),
                                                          static_cast<int32_t>(sets_.size()));
  if (is_new_set) {
    sets_.push_back(&set->first);
  }
  const auto [found, is_new] =
      frame_numbers_.try_emplace({state, set->second}, static_cast<int32_t>(frames_.size()));
  if (is_new) {
    frames_.push_back({.state = state, .belows = set->second, .open = OpenAbove(belows)});
  }
  return found->second;
}

int32_t GrammarRun::SituationOf(Situation situation) {
  const auto known = situation_numbers_.find(situation);
  if (known != situation_numbers_.end()) {
    return known->second;
  }
  if (std::ssize(situations_) >= kSituationsMax) {
    return kDead;
  }
  const auto number = static_cast<int32_t>(situations_.size());
  const auto added = situation_numbers_.emplace(std::move(situation), number).first;
  situations_.push_back(&added->first);
  row_of_.push_back(-1);
  return number;
}

bool GrammarRun::ReturnFrom(Reached& reached) {
  bool complete = false;
  std::vector<int32_t> pending;
  for (const auto& [state, belows] : reached) {
    pending.push_back(state);
  }
  while (!pending.empty()) {
    const int32_t state = pending.back();
    pending.pop_back();
    if (!grammar_->state(state).accepts) {
      continue;
    }
    for (const int32_t below : std::set<int32_t>(reached[state])) {
      if (below < 0) {
        complete = true;
        continue;
      }
      const Frame& frame = frames_[static_cast<size_t>(below)];
      if (AddAll(reached[frame.state], belows(frame))) {
        pending.push_back(frame.state);
      }
    }
  }
  return complete;
}

void GrammarRun::CallFrom(Reached& reached) {
  std::vector<int32_t> pending;
  for (const auto& [state, belows] : reached) {
    pending.push_back(state);
  }
  // It ends: no rule calls itself before a byte.
  while (!pending.empty()) {
    const int32_t state = pending.back();
    pending.pop_back();
    const std::set<int32_t> belows = reached[state];
    const int room = kOpenRulesMax - OpenAbove(belows);
    for (const GrammarCall& call : grammar_->calls(grammar_->state(state))) {
      const GrammarState& after = grammar_->state(call.next);
      if (grammar_->state(call.callee).needs + 1 > room || after.needs > room) {
        continue;
      }
      // A rule that is called last needs nothing to come back to.
      const bool is_last = after.accepts && after.edges_begin == after.edges_end &&
                           after.calls_begin == after.calls_end;
      const bool has_more =
          is_last ? AddAll(reached[call.callee], belows)
                  : AddAll(reached[call.callee], FrameSet{FrameOf(call.next, belows)});
      if (has_more) {
        pending.push_back(call.callee);
      }
    }
  }
}

GrammarRun::Situation GrammarRun::Close(Reached reached) {
  Situation result;
  // A rule that is called now does not end before a byte, so the one need not wait for the other.
  result.complete = ReturnFrom(reached);
  CallFrom(reached);
  for (const auto& [state, belows] : reached) {
    if (grammar_->state(state).edges_begin != grammar_->state(state).edges_end) {
      result.tops.push_back(FrameOf(state, belows));
    }
  }
  std::sort(result.tops.begin(), result.tops.end());
  return result;
}

int32_t GrammarRun::MakeRow(int32_t situation) {
  const std::vector<int32_t>& tops = situations_[static_cast<size_t>(situation)]->tops;
  std::array<bool, 257> begins = {};
  for (const int32_t top : tops) {
    for (const GrammarEdge& edge :
         grammar_->edges(grammar_->state(frames_[static_cast<size_t>(top)].state))) {
      begins[edge.first] = true;
      begins[edge.last + size_t{1}] = true;
    }
  }
  Row row;
  int32_t next = kDead;
  for (size_t byte = 0; byte < 256; ++byte) {
    if (begins[byte]) {
      Reached reached;
      for (const int32_t top : tops) {
        const Frame frame = frames_[static_cast<size_t>(top)];
        const int32_t state = grammar_->Step(frame.state, static_cast<uint8_t>(byte));
        if (state >= 0 && grammar_->state(state).needs <= kOpenRulesMax - frame.open) {
          AddAll(reached[state], belows(frame));
        }
      }
      next = reached.empty() ? kDead : SituationOf(Close(std::move(reached)));
    }
    row.next[byte] = next;
  }
  if (rows_.size() >= kRowsMax) {
    rows_.clear();
    std::fill(row_of_.begin(), row_of_.end(), -1);
  }
  row_of_[static_cast<size_t>(situation)] = static_cast<int32_t>(rows_.size());
  rows_.push_back(row);
  return row_of_[static_cast<size_t>(situation)];
}

bool GrammarRun::IsFull() const { return std::ssize(situations_) > kSituationsMax / 2; }

int32_t GrammarRun::Forget(int32_t situation) {
  const GrammarRun old = std::move(*this);
  *this = GrammarRun(*old.grammar_);
  std::map<int32_t, int32_t> copies;  // Of the old frames' numbers.
  // As deep as rules are open.
  const std::function<int32_t(int32_t)> copy = [&](int32_t number) {
    if (number < 0) {
      return number;
    }
    const auto known = copies.find(number);
    if (known != copies.end()) {
      return known->second;
    }
    const Frame& frame = old.frames_[static_cast<size_t>(number)];
    std::set<int32_t> belows;
    for (const int32_t below : old.belows(frame)) {
      belows.insert(copy(below));
    }
    return copies[number] = FrameOf(frame.state, belows);
  };
  const Situation& kept = *old.situations_[static_cast<size_t>(situation)];
  Situation result{.tops = {}, .complete = kept.complete};
  for (const int32_t top : kept.tops) {
    result.tops.push_back(copy(top));
  }
  std::sort(result.tops.begin(), result.tops.end());
  return SituationOf(std::move(result));
}

}  // namespace nibble
