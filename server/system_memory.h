// What the system says about memory at one moment, as opposed to what the ledger counts: the
// figures marked "sampled" in telemetry, and the ground on which a budget is chosen.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/device.h"
#include "loader/vram_budget.h"
#include "server/model_registry.h"

namespace nibble {

// The owner of the runtime's reservation, made once at start.
inline constexpr absl::string_view kRuntimeOwner = "runtime";

// Whether `owner` is a model.
inline bool IsModel(const LedgerSnapshot::Owner& owner) {
  return owner.reserved[Purpose::kRuntime] == 0;
}

struct MemorySample {
  std::string device;     // "cuda:0".
  std::string kind;       // "NVIDIA H200".
  Device::Memory memory;  // Zeros if the device does not answer.
  int64_t rss_bytes = 0;  // Of this process; 0 if the system does not say.
  int64_t pinned_bytes = 0;
};

// A device that does not answer is checked by `registry`, the one on it.
MemorySample SampleMemory(const Device& device, const ModelRegistry& registry);

// Host memory that this process may use: the lower of what the system has available, with what it
// could give back, and the limits of the control groups around the process. `root` is put before
// every path, for tests.
//
// Errors: INTERNAL if /proc/meminfo cannot be read.
absl::StatusOr<int64_t> AvailableHostBytes(const std::string& root = "");

}  // namespace nibble
