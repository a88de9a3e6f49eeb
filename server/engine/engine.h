// Answers from one model: continuous batching over a paged KV cache. One thread owns the device's
// queue and runs step after step while there is work.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device.h"
#include "kernels/matrix.h"
#include "loader/weights.h"
#include "server/engine/generation.h"
#include "server/engine/model_recipe.h"
#include "server/engine/serving_sizes.h"

namespace nibble {

struct EngineOptions {
  ProductOptions products;
  int64_t waiting_max = 256;  // Requests that wait; more are refused.
  absl::Duration paused_max = absl::Minutes(1);
};

// What an engine does at the moment, and what it has done.
struct EngineStats {
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t pages_used = 0;  // By sequences that run; what is kept for others to begin with is not.
  int64_t page_count = 0;
  int64_t prompt_tokens = 0;  // Since it began.
  int64_t generated_tokens = 0;
  int64_t reused_tokens = 0;  // Of prompts, whose pages were there already.
  int64_t preemptions = 0;
};

// How long one request took; for histograms.
struct RequestTimes {
  absl::Duration to_first_token;  // Infinite if there was none.
  absl::Duration total;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
};

// Called by the engine's thread, without locks; must return at once.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnInterTokenLatency(absl::Duration /*latency*/) {}
  virtual void OnRequestDone(const RequestTimes& /*times*/, const absl::Status& /*status*/) {}

  // A step failed: the engine answers nothing any more.
  virtual void OnBroken(const absl::Status& /*status*/) {}
};

// Thread-safe.
class Engine {
 public:
  // `weights` have the KV and workspace memory that `sizes` asks for. What is given must outlive
  // the engine; `observer` may be null.
  //
  // Errors: those of BindWeights; INTERNAL if the device fails.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(Device& device, const Weights& weights,
                                                        const ModelRecipe& recipe,
                                                        const ServingSizes& sizes,
                                                        const EngineOptions& options,
                                                        EngineObserver* observer);

  // Stop(), without patience.
  ~Engine();

  // Queues a request.
  //
  // Errors: INVALID_ARGUMENT for an empty prompt, one that leaves no room in the context, ids
  //   outside the vocabulary, or bad options, naming the field; RESOURCE_EXHAUSTED with reason
  //   REQUEST_QUEUE_FULL; UNAVAILABLE once it stops; INTERNAL after a step has failed.
  absl::StatusOr<std::shared_ptr<Generation>> Submit(GenerationRequest request,
                                                     std::function<void()> notify);

  // Refuses new requests from now on.
  void Drain();

  // Ends every request that is not done with UNAVAILABLE.
  void Abort();

  // Drain() and Abort(); returns when the thread has ended and nothing is queued. Idempotent.
  void Stop();

  EngineStats stats() const;
  const ModelRecipe& recipe() const;
  const StepLimits& limits() const;

 private:
  class Loop;
  explicit Engine(std::unique_ptr<Loop> loop);

  std::unique_ptr<Loop> loop_;
};

}  // namespace nibble
