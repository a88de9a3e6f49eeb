#include "server/load_caller.h"

#include <algorithm>
#include <chrono>

namespace nibble {
namespace {

// Twenty times a second is smooth on a progress bar and nothing for the wire.
constexpr int64_t kProgressIntervalNs = 50'000'000;

int64_t SteadyNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Returns by how much it was raised.
int64_t Raise(std::atomic<int64_t>& value, int64_t candidate) {
  int64_t seen = value.load(std::memory_order_relaxed);
  while (seen < candidate && !value.compare_exchange_weak(seen, candidate)) {
  }
  return std::max<int64_t>(candidate - seen, 0);
}

}  // namespace

bool LoadMeter::Update(const LoadProgress& progress) {
  total_read_bytes_ += Raise(read_bytes_, progress.read_bytes);
  Raise(source_bytes_, progress.source_bytes);
  Raise(tensors_done_, progress.tensors_done);
  Raise(tensors_total_, progress.tensors_total);
  const int64_t now_ns = SteadyNs();
  int64_t heard_ns = heard_ns_;
  // Of several readers at once, the one that sets the time is the one that tells.
  return now_ns - heard_ns >= kProgressIntervalNs &&
         heard_ns_.compare_exchange_strong(heard_ns, now_ns);
}

void LoadMeter::Restart(const LoadProgress& progress) {
  read_bytes_ = progress.read_bytes;
  source_bytes_ = progress.source_bytes;
  tensors_done_ = progress.tensors_done;
  tensors_total_ = progress.tensors_total;
}

LoadProgress LoadMeter::Read() const {
  return {read_bytes_, source_bytes_, tensors_done_, tensors_total_};
}

void LoadCaller::HearPlan(const PlanAnswer& plan) {
  heard_plan_ = true;
  if (listens()) {
    listener_->OnPlan(plan);
  }
}

void LoadCaller::HearProgress(const LoadProgress& progress) {
  if (progress.source_bytes != heard_.source_bytes) {
    heard_ = {};
  }
  const bool grown = progress.read_bytes > heard_.read_bytes ||
                     progress.tensors_done > heard_.tensors_done ||
                     progress.source_bytes > heard_.source_bytes;
  // Progress may overtake the plan on its way to a caller that has just joined.
  if (!heard_plan_ || !grown) {
    return;
  }
  heard_ = progress;
  if (listens()) {
    listener_->OnProgress(progress);
  }
}

void LoadCaller::HearDone(const absl::StatusOr<ModelInfo>& result) {
  if (listens()) {
    listener_->OnDone(result);
  }
  Leave();
}

}  // namespace nibble
