#include "server/engine/decode_steps.h"

#include <algorithm>

#include "server/engine/step_inputs.h"

namespace nibble {

absl::StatusOr<DecodeSteps> DecodeSteps::Record(Queue& queue, ForwardPass& pass) {
  DecodeSteps steps(queue);
  const StepLimits& limits = pass.sizes().limits;
  for (int64_t sequences = 1;; sequences *= 2) {
    const StepBounds bounds = DecodeBounds(sequences, limits);
    absl::StatusOr<std::unique_ptr<Recording>> recording = queue.RecordWork(
        [&queue, &pass, bounds]() { return pass.QueueSampledStep(queue, bounds); });
    if (!recording.ok()) {
      return recording.status();
    }
    steps.steps_.emplace_back(bounds, *std::move(recording));
    if (sequences >= limits.sequences) {
      return steps;
    }
  }
}

absl::Status DecodeSteps::Replay(const StepBounds& bounds) {
  const auto step = std::find_if(steps_.begin(), steps_.end(),
                                 [&bounds](const auto& entry) { return entry.first == bounds; });
  Check(step != steps_.end(), "every step that only decodes was recorded");
  return queue_->Replay(*step->second);
}

}  // namespace nibble
