// One caller of a load, and the rules by which it hears of it.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "server/model_registry.h"

namespace nibble {

// How far a load is, as the loader's threads report it. Thread-safe; nothing waits.
class LoadMeter {
 public:
  // Takes over what has grown.
  //
  // Returns: true if listeners should hear of it, which is at most every 50 ms.
  bool Update(const LoadProgress& progress);

  // Begins anew, from another source.
  //
  // Requires: nobody calls Update() meanwhile.
  void Restart(const LoadProgress& progress);

  LoadProgress Read() const;

  // All that was read, of each source.
  int64_t total_read_bytes() const { return total_read_bytes_; }

 private:
  std::atomic<int64_t> total_read_bytes_ = 0;
  std::atomic<int64_t> read_bytes_ = 0;
  std::atomic<int64_t> source_bytes_ = 0;
  std::atomic<int64_t> tensors_done_ = 0;
  std::atomic<int64_t> tensors_total_ = 0;
  std::atomic<int64_t> heard_ns_ = 0;  // Of the steady clock.
};

// Passes a load's events on to one listener: the plan, then progress that grows (with another
// source, which shows by its size, from the start again), then the result, then nothing. All but
// Leave() belong to one thread.
class LoadCaller {
 public:
  // `listener` may be null: nobody listens.
  explicit LoadCaller(std::shared_ptr<LoadListener> listener) : listener_(std::move(listener)) {}

  void HearPlan(const PlanAnswer& plan);
  void HearProgress(const LoadProgress& progress);
  void HearDone(const absl::StatusOr<ModelInfo>& result);

  // From now on no call begins. Any thread.
  void Leave() { gone_ = true; }

 private:
  bool listens() const { return listener_ != nullptr && !gone_; }

  const std::shared_ptr<LoadListener> listener_;
  std::atomic<bool> gone_ = false;
  bool heard_plan_ = false;
  LoadProgress heard_;
};

}  // namespace nibble
