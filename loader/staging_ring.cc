#include "loader/staging_ring.h"

#include <algorithm>
#include <utility>

#include "kernels/block_format.h"
#include "kernels/error_sums.h"

namespace nibble {
namespace {

constexpr int64_t kPageBytes = 4_KiB;

// A cache line for the answer about NaN, so that readers do not share one, then error sums.
constexpr int64_t kCellStrideBytes = 1_KiB;
constexpr int64_t kSumsOffsetBytes = 64;

// A tile is quantized by the core that has just read it, so it should still be in that core's L2
// when it is: 512 KiB to 2 MiB on today's processors, and the codes want room beside it. (Loads of
// a 1.1 B model with 128 KiB to 1 MiB took the same processor time within the noise of a busy
// 2-core machine with 512 KiB of L2, 2026-11-23.)
constexpr int64_t kHostSlotBytes = 256_KiB;
constexpr int kHostSlotsPerReader = 1;  // Nothing overlaps within a thread.

// 8 threads that pread 4 MiB into two pinned slots each carry 53.5 GB/s of the 55.6 GB/s of an
// H200's bus; pieces of 1 or 16 MiB are slower (H200 machine with 16 cores).
constexpr int64_t kCudaSlotBytes = 4_MiB;
constexpr int kCudaSlotsPerReader = 2;
constexpr int kCudaReaderCount = 8;

// Below this a read costs more than its bytes; also room for a block of the widest type.
constexpr int64_t kSlotBytesMin = 64_KiB;
static_assert(kSlotBytesMin >= kBlockSizeMax * 4, "a slot holds a block");

static_assert(kSumsOffsetBytes + ErrorChunkCount(kCudaSlotBytes / 2) * int64_t{sizeof(ErrorSums)} <=
                  kCellStrideBytes,
              "a cell has room for the chunks of a slot of 16-bit elements");

constexpr int kReaderCountMax = 256;

int64_t CellsBytes(int64_t slot_count) {
  return RoundUp(slot_count * kCellStrideBytes, kPageBytes);
}

int64_t SlotCount(const StagingShape& shape) {
  return int64_t{shape.reader_count} * shape.slots_per_reader;
}

}  // namespace

StagingShape ShapeStaging(const DeviceTraits& traits, int64_t staging_bytes, int reader_count,
                          int core_count) {
  const bool host = traits.host_visible;
  StagingShape shape;
  shape.slots_per_reader = host ? kHostSlotsPerReader : kCudaSlotsPerReader;
  const int suited = host ? core_count : std::min(core_count, kCudaReaderCount);
  const int wanted = std::clamp(reader_count > 0 ? reader_count : suited, 1, kReaderCountMax);
  const int64_t slots_max =
      (staging_bytes - CellsBytes(int64_t{kReaderCountMax} * shape.slots_per_reader)) /
      kSlotBytesMin;
  const int64_t fitting = std::max<int64_t>(slots_max / shape.slots_per_reader, 1);
  shape.reader_count = static_cast<int>(std::min<int64_t>(wanted, fitting));

  const int64_t slot_count = SlotCount(shape);
  const int64_t share = (staging_bytes - CellsBytes(slot_count)) / slot_count;
  shape.slot_bytes =
      std::min(share / kPageBytes * kPageBytes, host ? kHostSlotBytes : kCudaSlotBytes);
  return shape;
}

HostBuffer::HostBuffer(HostBuffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)), bytes_(std::exchange(other.bytes_, {})) {}

HostBuffer& HostBuffer::operator=(HostBuffer&& other) noexcept {
  if (this != &other) {
    Free();
    device_ = std::exchange(other.device_, nullptr);
    bytes_ = std::exchange(other.bytes_, {});
  }
  return *this;
}

HostBuffer::~HostBuffer() { Free(); }

void HostBuffer::Free() {
  if (device_ != nullptr) {
    device_->FreeHost(bytes_);
    device_ = nullptr;
  }
}

absl::StatusOr<StagingRing> StagingRing::Allocate(Device& device,
                                                  VramBudget::Reservation& reservation,
                                                  int64_t staging_bytes, int64_t scratch_bytes,
                                                  const StagingShape& shape) {
  absl::StatusOr<DeviceBuffer> buffer =
      DeviceBuffer::Allocate(device, reservation, Purpose::kStaging, staging_bytes);
  if (!buffer.ok()) {
    return buffer.status();
  }
  if (device.traits().host_visible) {
    const std::span<std::byte> view = device.HostView(buffer->span());
    return StagingRing(shape, scratch_bytes, *std::move(buffer), HostBuffer(), view);
  }
  const int64_t used_bytes = CellsBytes(SlotCount(shape)) + SlotCount(shape) * shape.slot_bytes;
  absl::StatusOr<std::span<std::byte>> host = device.AllocateHost(used_bytes);
  if (!host.ok()) {
    return host.status();
  }
  return StagingRing(shape, scratch_bytes, *std::move(buffer), HostBuffer(device, *host), *host);
}

DeviceSpan StagingRing::scratch() const {
  return buffer_.span().Slice(buffer_.span().bytes() - scratch_bytes_, scratch_bytes_);
}

StagingRing::Slot StagingRing::slot(int reader_index, int slot_index) const {
  const int64_t number = int64_t{reader_index} * shape_.slots_per_reader + slot_index;
  const int64_t cell_offset = number * kCellStrideBytes;
  const int64_t slot_offset = CellsBytes(SlotCount(shape_)) + number * shape_.slot_bytes;
  const int64_t cell_bytes = sizeof(uint64_t);
  const int64_t sums_bytes = RoundDown(kCellStrideBytes - kSumsOffsetBytes, sizeof(ErrorSums));
  Slot slot;
  slot.device = buffer_.span().Slice(slot_offset, shape_.slot_bytes);
  slot.host =
      host_.subspan(static_cast<size_t>(slot_offset), static_cast<size_t>(shape_.slot_bytes));
  slot.device_cell = buffer_.span().Slice(cell_offset, cell_bytes);
  slot.host_cell = host_.subspan(static_cast<size_t>(cell_offset), static_cast<size_t>(cell_bytes));
  slot.device_sums = buffer_.span().Slice(cell_offset + kSumsOffsetBytes, sums_bytes);
  slot.host_sums = host_.subspan(static_cast<size_t>(cell_offset + kSumsOffsetBytes),
                                 static_cast<size_t>(sums_bytes));
  return slot;
}

}  // namespace nibble
