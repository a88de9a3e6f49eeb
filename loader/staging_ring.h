// The fixed memory that a load streams through: one device allocation, and on devices that the host
// cannot see into its page-locked mirror.
//
//   | cells: 1 KiB a slot | slot 0 | slot 1 | ... | (unused) | scratch
//
// A slot belongs to one reader. Its cell takes the device's answer to "which element is the first
// that is NaN or Inf", and behind it the sums of error statistics. The scratch is the device's
// alone (ScaleScratch).

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "loader/device_buffer.h"
#include "loader/vram_budget.h"

namespace nibble {

// How a staging allocation is cut up.
struct StagingShape {
  int reader_count = 1;
  int slots_per_reader = 1;
  int64_t slot_bytes = 0;
};

// Cuts `staging_bytes` for `reader_count` readers (0: as many as suit the device and `core_count`),
// or fewer if it is too small for so many.
//
// Requires: staging_bytes >= kStagingBytesMin.
StagingShape ShapeStaging(const DeviceTraits& traits, int64_t staging_bytes, int reader_count,
                          int core_count);

// Memory from Device::AllocateHost, given back on destruction. Move-only.
class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(Device& device, std::span<std::byte> bytes) : device_(&device), bytes_(bytes) {}
  HostBuffer(HostBuffer&& other) noexcept;
  HostBuffer& operator=(HostBuffer&& other) noexcept;
  ~HostBuffer();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  void Free();

  Device* device_ = nullptr;
  std::span<std::byte> bytes_;
};

// Owns both sides. Thread-safe: slots are disjoint.
class StagingRing {
 public:
  struct Slot {
    DeviceSpan device;
    std::span<std::byte> host;  // On the host device the same memory as `device`.
    DeviceSpan device_cell;
    std::span<std::byte> host_cell;
    DeviceSpan device_sums;  // ErrorSums, for the chunks of a whole slot.
    std::span<std::byte> host_sums;
  };

  // Allocates `staging_bytes`, the last `scratch_bytes` of them for the scratch.
  //
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<StagingRing> Allocate(Device& device, VramBudget::Reservation& reservation,
                                              int64_t staging_bytes, int64_t scratch_bytes,
                                              const StagingShape& shape);

  const StagingShape& shape() const { return shape_; }
  Slot slot(int reader_index, int slot_index) const;
  DeviceSpan scratch() const;

 private:
  StagingRing(const StagingShape& shape, int64_t scratch_bytes, DeviceBuffer buffer,
              HostBuffer mirror, std::span<std::byte> host)
      : shape_(shape),
        scratch_bytes_(scratch_bytes),
        buffer_(std::move(buffer)),
        mirror_(std::move(mirror)),
        host_(host) {}

  StagingShape shape_;
  int64_t scratch_bytes_;
  DeviceBuffer buffer_;
  HostBuffer mirror_;          // Empty on the host device.
  std::span<std::byte> host_;  // The host's side, offset by offset as `buffer_`.
};

}  // namespace nibble
