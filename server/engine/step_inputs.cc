#include "server/engine/step_inputs.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace nibble {
namespace {

int64_t Bucket(int64_t count, int64_t limit) {
  const auto bucket = std::bit_ceil(static_cast<uint64_t>(std::max(count, int64_t{1})));
  return std::min(static_cast<int64_t>(bucket), limit);
}

}  // namespace

StepInputs::StepInputs(const StepLimits& limits)
    : limits_(limits),
      layout_(limits),
      numbers_(static_cast<size_t>(layout_.count)),
      used_(layout_.page_tables) {}

void StepInputs::Clear() {
  rows_ = 0;
  sequences_ = 0;
  outputs_ = 0;
  used_ = layout_.page_tables;
  At(layout_.live_rows, 0) = 0;
  At(layout_.live_sequences, 0) = 0;
  At(layout_.live_outputs, 0) = 0;
}

bool StepInputs::HasRoom(int64_t rows, int64_t outputs) const {
  return rows_ + rows <= limits_.rows && sequences_ < limits_.sequences &&
         outputs_ + outputs <= limits_.outputs;
}

int64_t StepInputs::Add(const SequenceChunk& chunk) {
  const auto count = std::ssize(chunk.tokens);
  const int64_t end = chunk.first_position + count;
  Check(count > 0 && chunk.first_output + chunk.output_count <= count &&
            HasRoom(count, chunk.output_count),
        "a step has room for what is added");
  Check(end <= std::ssize(chunk.pages) * kPageTokens && std::ssize(chunk.pages) <= limits_.pages,
        "a sequence has pages for its tokens");
  At(layout_.first_rows, sequences_) = static_cast<int32_t>(rows_);
  At(layout_.row_counts, sequences_) = static_cast<int32_t>(count);
  At(layout_.state_slots, sequences_) = chunk.state_slot;
  std::copy(chunk.pages.begin(), chunk.pages.end(),
            numbers_.begin() + layout_.page_tables + sequences_ * limits_.pages);
  used_ = layout_.page_tables + sequences_ * limits_.pages + std::ssize(chunk.pages);
  for (int64_t index = 0; index < count; ++index) {
    const int64_t position = chunk.first_position + index;
    const int32_t page = chunk.pages[static_cast<size_t>(position / kPageTokens)];
    At(layout_.ids, rows_) = chunk.tokens[static_cast<size_t>(index)];
    At(layout_.positions, rows_) = static_cast<int32_t>(position);
    At(layout_.slots, rows_) = static_cast<int32_t>(page * kPageTokens + position % kPageTokens);
    At(layout_.row_sequences, rows_) = static_cast<int32_t>(sequences_);
    ++rows_;
  }
  const int64_t first_output = outputs_;
  for (int64_t index = 0; index < chunk.output_count; ++index) {
    const int64_t row = rows_ - count + chunk.first_output + index;
    At(layout_.output_rows, outputs_++) = static_cast<int32_t>(row);
  }
  ++sequences_;
  At(layout_.live_rows, 0) = static_cast<int32_t>(rows_);
  At(layout_.live_sequences, 0) = static_cast<int32_t>(sequences_);
  At(layout_.live_outputs, 0) = static_cast<int32_t>(outputs_);
  return first_output;
}

absl::Status StepInputs::Upload(Queue& queue, const StepInputSpans& target) const {
  const auto used = std::as_bytes(std::span(numbers_).first(static_cast<size_t>(used_)));
  return queue.CopyToDevice(used, target.all.Slice(0, std::ssize(used)));
}

StepBounds DecodeBounds(int64_t sequences, const StepLimits& limits) {
  return {Bucket(sequences, limits.rows), Bucket(sequences, limits.sequences),
          Bucket(sequences, limits.outputs)};
}

StepBounds StepInputs::bounds() const {
  return {Bucket(rows_, limits_.rows), Bucket(sequences_, limits_.sequences),
          Bucket(outputs_, limits_.outputs)};
}

}  // namespace nibble
