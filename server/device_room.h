// Whether the card has what a load was promised: the budget counts what we take, not what others
// and the driver do.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "loader/vram_budget.h"

namespace nibble {

// Of one load.
struct RoomNeeded {
  std::string model;
  std::string device;          // "cuda:0"
  int64_t peak_bytes = 0;      // Within the budget.
  int64_t recorded_bytes = 0;  // Of recorded steps, which the driver keeps: part of runtime.
};

// Errors: RESOURCE_EXHAUSTED with reason DEVICE_MEMORY_TAKEN if less than the peak is free; with
//   reason RUNTIME_RESERVE_EXCEEDED if recorded steps would not fit what was set aside for runtime,
//   if something was, and where the device can tell what this process holds.
absl::Status CheckDeviceHasRoom(const RoomNeeded& needed, const Device::Memory& memory,
                                const LedgerSnapshot& ledger);

}  // namespace nibble
