// Runs a grammar over bytes, and remembers every step.

#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "server/engine/grammar/grammar.h"

namespace nibble {

// The automaton of a grammar's stacks, made deterministic as it is used: a *situation* is the set
// of stacks that the bytes so far allow, known by a number, and each step from it is computed once.
// Stacks share their lower ends.
//
// Belongs to one sequence. Memory: bounded by kSituationsMax and kRowsMax, some 16 MiB, as long as
// Forget() is called between tokens.
class GrammarRun {
 public:
  static constexpr int32_t kDead = -1;

  // `grammar` must outlive the run.
  explicit GrammarRun(const Grammar& grammar);

  int32_t start() const { return start_; }

  // The situation behind a byte, or kDead.
  int32_t Step(int32_t situation, uint8_t byte) {
    int32_t row = row_of_[static_cast<size_t>(situation)];
    if (row < 0) {
      row = MakeRow(situation);
    }
    return rows_[static_cast<size_t>(row)].next[byte];
  }

  // Whether the text may end here.
  bool IsComplete(int32_t situation) const {
    return situations_[static_cast<size_t>(situation)]->complete;
  }

  // Whether Forget() is due.
  bool IsFull() const;

  // Forgets all but `situation`, which gets a new number.
  int32_t Forget(int32_t situation);

 private:
  using FrameSet = std::vector<int32_t>;  // Sorted numbers of frames_; -1: there is none below.

  // The top of one or more stacks: those that are in the same state are continued as one.
  struct Frame {
    int32_t state;   // Where the rule is; below the top: where it goes on.
    int32_t belows;  // A number of sets_.
    int32_t open;    // Frames below, at most.
  };
  struct Situation {
    FrameSet tops;  // Whose states have edges.
    bool complete = false;

    friend bool operator==(const Situation&, const Situation&) = default;
    template <typename H>
    friend H AbslHashValue(H hash, const Situation& value) {
      return H::combine(std::move(hash), value.tops, value.complete);
    }
  };
  // By state: the frames below.
  using Reached = std::map<int32_t, std::set<int32_t>>;

  struct Row {
    int32_t next[256];
  };

  int32_t FrameOf(int32_t state, const std::set<int32_t>& belows);
  int32_t OpenAbove(const std::set<int32_t>& belows) const;
  const FrameSet& belows(const Frame& frame) const {
    return *sets_[static_cast<size_t>(frame.belows)];
  }
  int32_t SituationOf(Situation situation);

  // Adds what is reached where rules end, and where rules are called, without a byte.
  bool ReturnFrom(Reached& reached);
  void CallFrom(Reached& reached);
  Situation Close(Reached reached);
  int32_t MakeRow(int32_t situation);

  const Grammar* grammar_;
  std::vector<Frame> frames_;
  absl::flat_hash_map<std::pair<int32_t, int32_t>, int32_t> frame_numbers_;  // By state and belows.
  std::vector<const FrameSet*> sets_;  // Keys of set_numbers_.
  absl::node_hash_map<FrameSet, int32_t> set_numbers_;
  absl::node_hash_map<Situation, int32_t> situation_numbers_;
  std::vector<const Situation*> situations_;  // Keys of situation_numbers_.
  std::vector<int32_t> row_of_;               // Of each situation; -1: not made, or dropped.
  std::vector<Row> rows_;
  int32_t start_;
};

}  // namespace nibble
