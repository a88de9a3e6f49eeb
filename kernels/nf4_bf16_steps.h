// Where the NF4 code of a BF16 number changes, for each mantissa of its block's scale.
//
// BF16 magnitudes as integers ("keys") are ordered as the numbers are, and keys of numbers that
// differ by a power of two differ by a multiple of 128. So how far below the scale's key the codes
// change depends on the scale's mantissa alone, 7 bits. The distance is measured from below, as a
// height, so that what is too small for any code but that of 0 has the height 0:
//
//   height   = max(0, key - (key of scale - kNf4HeightMax))   0 .. kNf4HeightMax, the scale's
//   interval = height * kNf4IntervalFactor >> 16              0 .. 15, about 42 heights each
//
// In an interval the code changes at most once for positive numbers and at most once for negative
// ones; the table says where. Its entries are bytes, for a byte shuffle:
//
//   step    uint8  low byte of the first height beyond the change: a height is beyond it if the
//                  difference of the low bytes is not negative as int8
//   higher  uint8  the higher of the two codes: for positive numbers the one beyond the change,
//                  for negative numbers the other one
//
// The change is where v exceeds threshold * scale in exact arithmetic. NF4 compares the rounded
// v * (1 / scale) instead, but no product of BF16 numbers comes so near a threshold that rounding
// matters: block_quantize_test tries every number under every mantissa.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/bytes.h"
#include "kernels/nf4_format.h"

namespace nibble {

// The lowest step is 605 keys below the scale. Of the factors with which no interval has two
// changes (1456 to 1638 for this height) this is one from the middle.
inline constexpr int kNf4HeightMax = 640;
inline constexpr int kNf4IntervalFactor = 1560;
static_assert(kNf4HeightMax * kNf4IntervalFactor >> 16 == 15, "16 intervals, a shuffle's reach");

struct alignas(64) Nf4Bf16Steps {
  std::array<uint8_t, 16> positive_step;    // [interval]
  std::array<uint8_t, 16> positive_higher;  // [interval]
  std::array<uint8_t, 16> negative_step;    // [interval]
  std::array<uint8_t, 16> negative_higher;  // [interval]
};

// The first height whose magnitude exceeds `threshold` times a scale of `mantissa`.
//
// Requires: 0 < threshold <= 1, and the height is not below 0.
constexpr int Nf4StepHeight(float threshold, int mantissa) {
  double product = static_cast<double>(threshold) * (128 + mantissa);  // Exact: 24 and 8 bits.
  int octaves = 0;
  for (; product < 128; product *= 2) {
    ++octaves;
  }
  const int key = static_cast<int>(product) - 128 - 128 * octaves;  // Of the scale: mantissa.
  return kNf4HeightMax - (mantissa - key) + 1;
}

constexpr Nf4Bf16Steps MakeNf4Bf16Steps(int mantissa) {
  std::array<uint8_t, 16> positive_changes = {};
  std::array<uint8_t, 16> negative_changes = {};
  Nf4Bf16Steps steps = {};
  for (int interval = 0; interval < 16; ++interval) {
    // The interval's first height: where no code changes, every height is beyond the step.
    const auto first = static_cast<uint8_t>(CeilDivide(interval << 16, kNf4IntervalFactor));
    steps.positive_step[static_cast<size_t>(interval)] = first;
    steps.negative_step[static_cast<size_t>(interval)] = first;
  }
  for (const float threshold : kNf4Thresholds) {
    const bool is_negative = threshold < 0;
    const int height = Nf4StepHeight(is_negative ? -threshold : threshold, mantissa);
    const auto interval = static_cast<size_t>(height * kNf4IntervalFactor >> 16);
    uint8_t& changes = (is_negative ? negative_changes : positive_changes)[interval];
    if (height < 1 || changes != 0) {
      throw "two codes change in one interval";  // Stops the compiler: it is what runs this.
    }
    changes = 1;
    (is_negative ? steps.negative_step : steps.positive_step)[interval] =
        static_cast<uint8_t>(height);
  }
  uint8_t positive_code = 7;  // That of 0.
  uint8_t negative_code = 7;
  for (size_t interval = 0; interval < 16; ++interval) {
    positive_code = static_cast<uint8_t>(positive_code + positive_changes[interval]);
    negative_code = static_cast<uint8_t>(negative_code - negative_changes[interval]);
    steps.positive_higher[interval] = positive_code;
    steps.negative_higher[interval] = static_cast<uint8_t>(negative_code + 1);
  }
  return steps;
}

constexpr std::array<Nf4Bf16Steps, 128> MakeNf4Bf16StepTable() {
  std::array<Nf4Bf16Steps, 128> table = {};
  for (size_t mantissa = 0; mantissa < table.size(); ++mantissa) {
    table[mantissa] = MakeNf4Bf16Steps(static_cast<int>(mantissa));
  }
  return table;
}

inline constexpr std::array<Nf4Bf16Steps, 128> kNf4Bf16Steps = MakeNf4Bf16StepTable();

}  // namespace nibble
