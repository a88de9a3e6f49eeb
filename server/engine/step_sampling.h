// How the outputs of a step are sampled, as the host writes it, and what came of them.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "kernels/sample_ops.h"
#include "server/engine/sequence.h"
#include "server/engine/step_buffers.h"

namespace nibble {

// Belongs to one thread.
class StepSampling {
 public:
  explicit StepSampling(int64_t vocabulary_size);

  void Clear();

  // The next output: the token behind all of the sequence's.
  void AddNext(Sequence& sequence);

  // The next output: the log-probability of a token that is known.
  void AddKnown(const Sequence& sequence, int32_t id);

  // Queues the copies. Valid until Clear() is called after the step is done.
  absl::Status Upload(Queue& queue, const StepBuffers& buffers) const;

  // Queues the way back.
  absl::Status Download(Queue& queue, const StepBuffers& buffers);

  const SampledRow& result(int64_t output) const { return results_[static_cast<size_t>(output)]; }

 private:
  void Adjust(const Sequence& sequence, SamplerRow& row);

  const int64_t mask_words_;
  std::vector<SamplerRow> rows_;
  std::vector<LogitAdjustment> adjustments_;
  std::vector<uint32_t> masks_;
  std::vector<SampledRow> results_;
};

}  // namespace nibble
