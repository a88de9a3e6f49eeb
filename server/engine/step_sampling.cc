#include "server/engine/step_sampling.h"

#include <algorithm>

#include "kernels/bytes.h"

namespace nibble {
namespace {

template <typename T>
absl::Status Copy(Queue& queue, const std::vector<T>& values, DeviceSpan target) {
  const auto bytes = std::as_bytes(std::span(values));
  return values.empty() ? absl::OkStatus()
                        : queue.CopyToDevice(bytes, target.Slice(0, std::ssize(bytes)));
}

}  // namespace

StepSampling::StepSampling(int64_t vocabulary_size)
    : mask_words_(CeilDivide(vocabulary_size, int64_t{32})) {}

void StepSampling::Clear() {
  rows_.clear();
  adjustments_.clear();
  masks_.clear();
}

void StepSampling::Adjust(const Sequence& sequence, SamplerRow& row) {
  const SamplingOptions& sampling = sequence.request.sampling;
  std::map<int32_t, LogitAdjustment> adjustments;
  const bool penalizes = sampling.repetition_penalty != 1 || sampling.frequency_penalty != 0 ||
                         sampling.presence_penalty != 0;
  if (penalizes) {
    for (const auto& [id, count] : sequence.counts) {
      const float presence = count > 0 ? sampling.presence_penalty : 0;
      adjustments[id] = {id, sampling.repetition_penalty,
                         -sampling.frequency_penalty * static_cast<float>(count) - presence};
    }
  }
  for (const auto& [id, bias] : sampling.logit_biases) {
    LogitAdjustment& adjustment = adjustments[id];
    adjustment.id = id;
    adjustment.bias += bias;
  }
  row.first_adjustment = static_cast<int32_t>(adjustments_.size());
  row.adjustment_count = static_cast<int32_t>(adjustments.size());
  for (const auto& [id, adjustment] : adjustments) {
    adjustments_.push_back(adjustment);
  }
}

void StepSampling::AddNext(Sequence& sequence) {
  const SamplingOptions& sampling = sequence.request.sampling;
  SamplerRow row;
  row.temperature = sampling.temperature;
  row.top_p = sampling.top_p;
  row.min_p = sampling.min_p;
  row.top_k = static_cast<int32_t>(std::min(sampling.top_k, int64_t{1} << 30));
  row.seed = sampling.seed;
  row.position = static_cast<int32_t>(sequence.tokens.size());
  row.top_count = static_cast<int32_t>(std::max(sampling.top_log_probabilities, int64_t{0}));
  Adjust(sequence, row);
  if (sequence.request.constraint != nullptr) {
    row.mask_index = static_cast<int32_t>(std::ssize(masks_) / mask_words_);
    masks_.resize(masks_.size() + static_cast<size_t>(mask_words_));
    sequence.request.constraint->FillMask(std::span(masks_).last(static_cast<size_t>(mask_words_)));
  }
  rows_.push_back(row);
}

void StepSampling::AddKnown(const Sequence& sequence, int32_t id) {
  SamplerRow row;
  row.forced_id = id;
  row.top_count =
      static_cast<int32_t>(std::max(sequence.request.sampling.top_log_probabilities, int64_t{0}));
  rows_.push_back(row);
}

absl::Status StepSampling::Upload(Queue& queue, const StepBuffers& buffers) const {
  absl::Status status = Copy(queue, rows_, buffers.samplers);
  status.Update(Copy(queue, adjustments_, buffers.adjustments));
  status.Update(Copy(queue, masks_, buffers.masks));
  return status;
}

absl::Status StepSampling::Download(Queue& queue, const StepBuffers& buffers) {
  results_.resize(rows_.size());
  const auto bytes = std::as_writable_bytes(std::span(results_));
  return results_.empty() ? absl::OkStatus()
                          : queue.CopyToHost(buffers.results.Slice(0, std::ssize(bytes)), bytes);
}

}  // namespace nibble
