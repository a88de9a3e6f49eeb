// A model's weights in device memory: one slab, laid out by the plan; and beside it, what serving
// them takes.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "loader/device_buffer.h"
#include "loader/load_plan.h"
#include "loader/vram_budget.h"

namespace nibble {

// What a load leaves on the device. KV memory and workspace are there if the plan has them; their
// contents belong to the engine.
struct ResidentMemory {
  DeviceBuffer slab;
  DeviceBuffer kv_cache;
  DeviceBuffer workspace;
};

// Owns the memory and the reservation that covers it. Immutable after construction; thread-safe.
class Weights {
 public:
  Weights(std::shared_ptr<const LoadPlan> plan,
          std::unique_ptr<VramBudget::Reservation> reservation, ResidentMemory memory);

  const LoadPlan& plan() const { return *plan_; }
  int64_t allocated_bytes() const;
  int64_t allocated_peak_bytes() const { return reservation_->allocated_peak_bytes(); }

  // Empty if the plan has none.
  DeviceSpan kv_memory() const { return memory_.kv_cache.span(); }
  DeviceSpan workspace() const { return memory_.workspace.span(); }

  // Where a plane of a part lies, in the tensor's layout; empty if there is none.
  DeviceSpan plane(const PlannedTensor& tensor, const PlannedPart& part, Plane plane) const;

  // What double-quantized scales need beside their planes: fp32 [1], and fp32 [256].
  //
  // Requires: tensor.double_quantized.
  DeviceSpan scale_mean(const PlannedPart& part) const;
  DeviceSpan scale_map(const PlannedTensor& tensor) const;

  // The only way out: bytes of a plane in bitsandbytes' order, whatever their layout on the device,
  // `target.size()` of them from `offset_bytes` on. Waits for them.
  //
  // Requires: the range lies within the plane; the queue belongs to the calling thread.
  absl::Status CopyStandardBytes(Queue& queue, const PlannedTensor& tensor, const PlannedPart& part,
                                 Plane plane, int64_t offset_bytes,
                                 std::span<std::byte> target) const;

  // The mean of a part's scales. Waits for it. Requires: tensor.double_quantized.
  absl::StatusOr<float> CopyScaleMean(Queue& queue, const PlannedPart& part) const;

 private:
  std::shared_ptr<const LoadPlan> plan_;
  // Behind a pointer because buffers point to it; declared before it, so that it ends after it.
  std::unique_ptr<VramBudget::Reservation> reservation_;
  ResidentMemory memory_;
};

}  // namespace nibble
