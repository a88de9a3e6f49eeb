// Which device a daemon drives and how much of it: the operator's words turned into figures.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/device.h"
#include "server/daemon.h"

namespace nibble {

// The default of --runtime-reserve on CUDA. The context alone takes about 530 MiB on an H200.
inline constexpr int64_t kCudaRuntimeBytes = 1_GiB;

// A device, opened, with the limit and the runtime reservation on it.
struct ChosenDevice {
  std::unique_ptr<Device> device;
  int64_t budget_bytes = 0;
  int64_t runtime_bytes = 0;
};

// The device that `name` means: itself, or if it is empty the first GPU that can be opened, else
// the host. "host" or "cuda:N" with N below `cuda_count`.
//
// Errors: INVALID_ARGUMENT; NOT_FOUND if there is no such GPU.
absl::StatusOr<std::string> ChooseDeviceName(absl::string_view name, int cuda_count);

// The budget on a device that could give `device_bytes`: what the operator says, in bytes or as a
// share of it, or the default: 90 % of a card, 50 % of what the host has available.
//
// Errors: INVALID_ARGUMENT if it is 0, more than the device has, or no more than `runtime_bytes`.
absl::StatusOr<int64_t> ChooseBudget(const DaemonOptions& options, DeviceKind kind,
                                     int64_t device_bytes, int64_t runtime_bytes);

// Queues that a GPU has at once with these settings, on a machine of `core_count` cores: one for
// each reader of each load, each export, and the cache's writer. They are set up when the GPU is
// opened, so that nothing takes memory for one later.
//
// Errors: INVALID_ARGUMENT if loads have more than anybody has use for.
absl::StatusOr<int> CudaQueueCount(const DaemonOptions& options, int core_count);

// Opens the device. A host device is as large as its budget.
//
// Errors: as above, and those of OpenCudaDevice and AvailableHostBytes.
absl::StatusOr<ChosenDevice> OpenChosenDevice(const DaemonOptions& options);

}  // namespace nibble
