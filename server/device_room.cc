#include "server/device_room.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

absl::Status Taken(const RoomNeeded& needed, int64_t free_bytes) {
  ErrorDetails details;
  details.reason = "DEVICE_MEMORY_TAKEN";
  details.resource = needed.model;
  details.needed_bytes = needed.peak_bytes;
  details.available_bytes = free_bytes;
  details.remedies = {absl::StrCat("end other processes that hold memory of ", needed.device)};
  return WithDetails(
      absl::ResourceExhaustedError(absl::StrCat(
          needed.model, ": needs ", needed.peak_bytes, " bytes, which the budget allows, but ",
          needed.device, " has ", free_bytes, " free: others have taken the rest")),
      details);
}

absl::Status RuntimeExceeded(const RoomNeeded& needed, int64_t measured_bytes,
                             int64_t reserved_bytes) {
  ErrorDetails details;
  details.reason = "RUNTIME_RESERVE_EXCEEDED";
  details.resource = needed.model;
  details.needed_bytes = needed.recorded_bytes;
  details.available_bytes = std::max(reserved_bytes - measured_bytes, int64_t{0});
  details.remedies = {absl::StrCat("restart with --runtime-reserve of at least ",
                                   measured_bytes + needed.recorded_bytes)};
  return WithDetails(
      absl::ResourceExhaustedError(absl::StrCat(
          needed.model, ": its recorded steps need ", needed.recorded_bytes, " bytes, but of ",
          reserved_bytes, " of --runtime-reserve ", measured_bytes, " are in use")),
      details);
}

}  // namespace

absl::Status CheckDeviceHasRoom(const RoomNeeded& needed, const Device::Memory& memory,
                                const LedgerSnapshot& ledger) {
  if (memory.free_bytes < needed.peak_bytes) {
    return Taken(needed, memory.free_bytes);
  }
  const int64_t reserved = ledger.reserved[Purpose::kRuntime];
  if (needed.recorded_bytes > 0 && reserved > 0 && memory.process_bytes.has_value()) {
    const int64_t measured = *memory.process_bytes - ledger.allocated.total();
    if (measured + needed.recorded_bytes > reserved) {
      return RuntimeExceeded(needed, measured, reserved);
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble
