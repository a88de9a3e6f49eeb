// What differs from step to step, as the host writes it: which tokens of which sequences run, and
// where their keys and values go.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "server/engine/forward_pass.h"

namespace nibble {

// A sequence's part in a step: `tokens` from `first_position` on.
struct SequenceChunk {
  std::span<const int32_t> tokens;
  int64_t first_position = 0;
  std::span<const int32_t> pages;  // Of the sequence so far and of this chunk.
  int32_t state_slot = 0;
  int64_t first_output = 0;  // The logits of `output_count` tokens are wanted, of `tokens` from
  int64_t output_count = 0;  // this one on.
};

// The bounds of a step in which each of `sequences` sequences has one row and one output.
StepBounds DecodeBounds(int64_t sequences, const StepLimits& limits);

// Belongs to one thread.
class StepInputs {
 public:
  explicit StepInputs(const StepLimits& limits);

  void Clear();

  // Returns: the index of its first output among the step's.
  //
  // Requires: the step has room for it; every page that its tokens need is there.
  int64_t Add(const SequenceChunk& chunk);

  // Rows, sequences and outputs that are left.
  bool HasRoom(int64_t rows, int64_t outputs) const;

  // Queues the copy of what the step reads. Valid until Clear() is called after the step is done.
  absl::Status Upload(Queue& queue, const StepInputSpans& target) const;

  // Rounded up to a power of two (or the limit), so that few different steps are recorded.
  StepBounds bounds() const;

  // Whether each sequence has one row and one output: a step that only decodes.
  bool only_decodes() const { return rows_ == sequences_ && rows_ == outputs_; }

  int64_t row_count() const { return rows_; }
  int64_t output_count() const { return outputs_; }

 private:
  int32_t& At(int64_t first, int64_t index) { return numbers_[static_cast<size_t>(first + index)]; }

  const StepLimits limits_;
  const StepInputLayout layout_;
  std::vector<int32_t> numbers_;
  int64_t rows_ = 0;
  int64_t sequences_ = 0;
  int64_t outputs_ = 0;
  int64_t used_;  // Numbers up to the last page of the step. Tables of long contexts are large.
};

}  // namespace nibble
