// Sizes as code writes them: 64_MiB, and the rounding that every allocation shares.

#pragma once

#include <cstdint>

namespace nibble {

constexpr int64_t operator""_KiB(unsigned long long count) {
  return static_cast<int64_t>(count) << 10;
}
constexpr int64_t operator""_MiB(unsigned long long count) {
  return static_cast<int64_t>(count) << 20;
}
constexpr int64_t operator""_GiB(unsigned long long count) {
  return static_cast<int64_t>(count) << 30;
}

// Requires: bytes >= 0, multiple > 0, and the result fits in 63 bits.
constexpr int64_t RoundUp(int64_t bytes, int64_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

constexpr int64_t RoundDown(int64_t bytes, int64_t multiple) { return bytes / multiple * multiple; }

constexpr int64_t CeilDivide(int64_t dividend, int64_t divisor) {
  return (dividend + divisor - 1) / divisor;
}

}  // namespace nibble
