#include "loader/device_buffer.h"

#include <utility>

#include "kernels/check.h"

namespace nibble {

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      reservation_(std::exchange(other.reservation_, nullptr)),
      purpose_(other.purpose_),
      span_(std::exchange(other.span_, DeviceSpan())) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this != &other) {
    Free();
    device_ = std::exchange(other.device_, nullptr);
    reservation_ = std::exchange(other.reservation_, nullptr);
    purpose_ = other.purpose_;
    span_ = std::exchange(other.span_, DeviceSpan());
  }
  return *this;
}

DeviceBuffer::~DeviceBuffer() { Free(); }

void DeviceBuffer::Free() {
  if (device_ == nullptr) {
    return;
  }
  device_->Free(span_);
  // Counted only now: until the device has it back, the ledger must not offer it to others.
  reservation_->CountFreed(purpose_, span_.bytes());
  device_ = nullptr;
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(Device& device,
                                                    VramBudget::Reservation& reservation,
                                                    Purpose purpose, int64_t bytes) {
  Check(bytes > 0 && bytes % device.traits().granularity_bytes == 0,
        "an allocation is a multiple of the granularity");
  absl::StatusOr<DeviceSpan> span = device.Allocate(bytes);
  if (!span.ok()) {
    return span.status();
  }
  reservation.CountAllocated(purpose, bytes);
  return DeviceBuffer(device, reservation, purpose, *span);
}

}  // namespace nibble
