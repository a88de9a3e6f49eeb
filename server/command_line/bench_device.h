// The device that a benchmark runs on, without a daemon.

#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/device.h"
#include "loader/device_buffer.h"
#include "loader/vram_budget.h"

namespace nibble {

// Opens "host" with `bytes` of memory, or "cuda", "cuda:N".
//
// Errors: INVALID_ARGUMENT; as OpenCudaDevice.
absl::StatusOr<std::unique_ptr<Device>> OpenBenchDevice(absl::string_view device, int64_t bytes);

// A device, a piece of its memory under one reservation, and a queue.
struct BenchMemory {
  std::unique_ptr<Device> device;
  std::unique_ptr<VramBudget> budget;
  std::unique_ptr<VramBudget::Reservation> reservation;
  DeviceBuffer memory;
  std::unique_ptr<Queue> queue;
};

// Opens `device` with at least `bytes` of memory, all of it taken.
//
// Errors: as OpenBenchDevice; as DeviceBuffer::Allocate.
absl::StatusOr<BenchMemory> OpenBenchMemory(absl::string_view device, int64_t bytes);

// Queues the copies that fill `target` with `pattern`, again and again.
absl::Status FillWith(Queue& queue, std::span<const std::byte> pattern, DeviceSpan target);

}  // namespace nibble
