#include "server/command_line/bench_device.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "kernels/bytes.h"
#include "server/command_line/local_source.h"

namespace nibble {

absl::StatusOr<std::unique_ptr<Device>> OpenBenchDevice(absl::string_view device, int64_t bytes) {
  const absl::StatusOr<DeviceTraits> traits = TraitsOf(device);
  if (!traits.ok()) {
    return traits.status();
  }
  if (traits->kind == DeviceKind::kHost) {
    return OpenHostDevice(bytes);
  }
  int ordinal = 0;
  if (absl::ConsumePrefix(&device, "cuda:") && !absl::SimpleAtoi(device, &ordinal)) {
    return absl::InvalidArgumentError("device: expected cuda:N");
  }
  return OpenCudaDevice(ordinal);
}

absl::StatusOr<BenchMemory> OpenBenchMemory(absl::string_view device, int64_t bytes) {
  const int64_t total = RoundUp(bytes, kCudaTraits.granularity_bytes);
  BenchMemory bench;
  absl::StatusOr<std::unique_ptr<Device>> opened = OpenBenchDevice(device, total);
  if (!opened.ok()) {
    return opened.status();
  }
  bench.device = *std::move(opened);
  bench.budget = std::make_unique<VramBudget>(total);
  PurposeBytes needed;
  needed[Purpose::kWorkspace] = total;
  absl::StatusOr<VramBudget::Reservation> reservation = bench.budget->Reserve("bench", needed);
  if (!reservation.ok()) {
    return reservation.status();
  }
  bench.reservation = std::make_unique<VramBudget::Reservation>(*std::move(reservation));
  absl::StatusOr<DeviceBuffer> memory =
      DeviceBuffer::Allocate(*bench.device, *bench.reservation, Purpose::kWorkspace, total);
  if (!memory.ok()) {
    return memory.status();
  }
  bench.memory = *std::move(memory);
  absl::StatusOr<std::unique_ptr<Queue>> queue = bench.device->NewQueue();
  if (!queue.ok()) {
    return queue.status();
  }
  bench.queue = *std::move(queue);
  return bench;
}

absl::Status FillWith(Queue& queue, std::span<const std::byte> pattern, DeviceSpan target) {
  absl::Status status;
  for (int64_t done = 0; done < target.bytes() && status.ok(); done += std::ssize(pattern)) {
    const int64_t piece = std::min(std::ssize(pattern), target.bytes() - done);
    status =
        queue.CopyToDevice(pattern.first(static_cast<size_t>(piece)), target.Slice(done, piece));
  }
  return status;
}

}  // namespace nibble
