// The device that a benchmark runs on, without a daemon.

#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/device.h"

namespace nibble {

// Opens "host" with `bytes` of memory, or "cuda", "cuda:N".
//
// Errors: INVALID_ARGUMENT; as OpenCudaDevice.
absl::StatusOr<std::unique_ptr<Device>> OpenBenchDevice(absl::string_view device, int64_t bytes);

}  // namespace nibble
