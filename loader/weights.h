// A model's weights in device memory: one slab, laid out by the plan.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "loader/device_buffer.h"
#include "loader/load_plan.h"
#include "loader/vram_budget.h"

namespace nibble {

// Owns the slab and the reservation that covers it. Immutable after construction; thread-safe.
class Weights {
 public:
  Weights(std::shared_ptr<const LoadPlan> plan,
          std::unique_ptr<VramBudget::Reservation> reservation, DeviceBuffer slab);

  const LoadPlan& plan() const { return *plan_; }
  int64_t allocated_bytes() const;
  int64_t allocated_peak_bytes() const { return reservation_->allocated_peak_bytes(); }

  // Where a part's codes (or kept elements) and scales lie, in the tensor's layout.
  DeviceSpan data(const PlannedTensor& tensor, const PlannedPart& part) const;
  DeviceSpan scales(const PlannedTensor& tensor, const PlannedPart& part) const;

  // The only way out: a part's bytes in bitsandbytes' order, whatever its layout on the device.
  //
  // Requires: the sizes are those of data() and scales(); the queue belongs to the calling thread.
  absl::Status CopyStandardBytes(Queue& queue, const PlannedTensor& tensor, const PlannedPart& part,
                                 std::span<std::byte> data, std::span<std::byte> scales) const;

 private:
  std::shared_ptr<const LoadPlan> plan_;
  // Behind a pointer because the slab points to it; declared before it, so that it ends after it.
  std::unique_ptr<VramBudget::Reservation> reservation_;
  DeviceBuffer slab_;
};

}  // namespace nibble
