// Sequences of a step and the states that they keep from step to step.

#pragma once

#include "tests/kernels/step_fixture.h"

namespace nibble {

// Rows of a step that are consecutive tokens of a sequence.
struct Piece {
  int64_t row_count;
  int64_t slot;
  int64_t position;  // Of the first.
};

inline int64_t RowCountOf(const std::vector<Piece>& pieces) {
  int64_t count = 0;
  for (const Piece& piece : pieces) {
    count += piece.row_count;
  }
  return count;
}

inline constexpr int64_t kSlots = 4;

class StateTest : public StepTest {
 protected:
  // The pieces lie one after the other; rows and sequences have room for two more.
  StepSequences UploadSequences(const std::vector<Piece>& pieces) {
    std::vector<int32_t> first_rows;
    std::vector<int32_t> row_counts;
    std::vector<int32_t> slots;
    std::vector<int32_t> positions;
    for (const Piece& piece : pieces) {
      first_rows.push_back(static_cast<int32_t>(std::ssize(positions)));
      row_counts.push_back(static_cast<int32_t>(piece.row_count));
      slots.push_back(static_cast<int32_t>(piece.slot));
      for (int64_t t = 0; t < piece.row_count; ++t) {
        positions.push_back(static_cast<int32_t>(piece.position + t));
      }
    }
    const int64_t bound = std::ssize(pieces) + 2;
    StepSequences sequences;
    sequences.bound = bound;
    sequences.live = UploadCount(std::ssize(pieces));
    sequences.first_rows = UploadIndices(first_rows, bound);
    sequences.row_counts = UploadIndices(row_counts, bound);
    sequences.state_slots = UploadIndices(slots, bound);
    sequences.positions = UploadIndices(positions, std::ssize(positions) + 2);
    return sequences;
  }

  // Every slot holds NaN until a sequence begins there.
  DeviceSpan UploadState(int64_t slot_size) {
    return UploadVector(std::vector<uint32_t>(static_cast<size_t>(kSlots * slot_size), kUntouched));
  }

  void ExpectOtherSlotsUntouched(DeviceSpan state, const std::vector<int64_t>& used) {
    const std::vector<uint32_t> numbers = Download<uint32_t>(state);
    const size_t slot_size = numbers.size() / kSlots;
    for (size_t i = 0; i < numbers.size(); ++i) {
      const auto slot = static_cast<int64_t>(i / slot_size);
      if (std::find(used.begin(), used.end(), slot) == used.end()) {
        ASSERT_EQ(numbers[i], kUntouched) << "slot " << slot;
      }
    }
  }
};

}  // namespace nibble
