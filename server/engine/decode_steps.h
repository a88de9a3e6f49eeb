// The steps in which every sequence has one token, recorded once for each bucket of sequences: on a
// GPU a replay is one launch instead of a thousand.

#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "server/engine/forward_pass.h"

namespace nibble {

// Belongs to one thread, that of its queue.
class DecodeSteps {
 public:
  // Records each of `pass`'s, sampling included. Queue and pass must outlive what it returns.
  //
  // Errors: those of Queue::RecordWork.
  static absl::StatusOr<DecodeSteps> Record(Queue& queue, ForwardPass& pass);

  // Queues the step of these bounds. Requires: they are DecodeBounds().
  absl::Status Replay(const StepBounds& bounds);

 private:
  explicit DecodeSteps(Queue& queue) : queue_(&queue) {}

  Queue* queue_;
  std::vector<std::pair<StepBounds, std::unique_ptr<Recording>>> steps_;
};

}  // namespace nibble
