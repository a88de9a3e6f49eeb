// Device memory that frees itself and is counted in the ledger while it lives.

#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "loader/vram_budget.h"

namespace nibble {

// One allocation under a reservation. Move-only. Must not outlive the device or the reservation.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  // Takes `bytes`, a multiple of the device's granularity, from `device` and counts it under
  // `reservation`.
  //
  // Errors: RESOURCE_EXHAUSTED with reason DEVICE_MEMORY_TAKEN if the device has less than the
  //   budget promised; nothing is counted then.
  static absl::StatusOr<DeviceBuffer> Allocate(Device& device, VramBudget::Reservation& reservation,
                                               Purpose purpose, int64_t bytes);

  DeviceSpan span() const { return span_; }

 private:
  DeviceBuffer(Device& device, VramBudget::Reservation& reservation, Purpose purpose,
               DeviceSpan span)
      : device_(&device), reservation_(&reservation), purpose_(purpose), span_(span) {}
  void Free();

  Device* device_ = nullptr;
  VramBudget::Reservation* reservation_ = nullptr;
  Purpose purpose_ = Purpose::kWeights;
  DeviceSpan span_;
};

}  // namespace nibble
