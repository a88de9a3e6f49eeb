#include "server/command_line/bench_device.h"

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
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

}  // namespace nibble
