// Sizes as people write and read them: `24GiB`, `1.5 GB`, `90%`.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// Reads a size: a decimal number, then B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB or TiB
// (powers of 1024); a bare number counts bytes. A fraction of a byte is dropped.
//
// Errors: INVALID_ARGUMENT for anything else, for a sign, and for 2^63 bytes or more.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);

// Bytes, or a share of the device: exactly one is set.
struct BudgetSize {
  std::optional<int64_t> bytes;
  std::optional<double> ratio;  // Over 0, at most 1.
};

// Reads a size or a percentage (`90%`, `62.5 %`).
//
// Errors: as ParseByteSize; a percentage must be over 0 and at most 100.
absl::StatusOr<BudgetSize> ParseBudgetSize(absl::string_view text);

// Device memory for people, in powers of 1024: "19.64 GiB", "512 B".
std::string FormatMemory(int64_t bytes);

// Files and rates for people, in powers of 1000, as disks and networks are sold: "67.52 GB".
std::string FormatData(int64_t bytes);

// Every byte, in groups of three: "21,088,567,296".
std::string FormatExact(int64_t number);

}  // namespace nibble
