// Where the host finds the code of a double-quantized scale without a search. Floats that share
// their exponent and the first six bits of mantissa are a bucket, and no bucket has more than one
// threshold of scale_format.h: between 1/2 and 1, where they are densest, 36 lie at even distances
// in 64 buckets.

#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/scale_format.h"

namespace nibble {

inline constexpr int kScaleBucketShift = 23 - 6;        // Bits that tell floats of a bucket apart.
inline constexpr int32_t kScaleBucketMin = 0x34000000;  // 2^-23; smaller magnitudes have code 127.
inline constexpr int32_t kScaleBucketMax =
    0x3f800000;  // 1, the last bucket: x may be an ulp above.
inline constexpr size_t kScaleBucketCount =
    ((kScaleBucketMax - kScaleBucketMin) >> kScaleBucketShift) + 1;

// The entry of the bucket that begins at the magnitude `bits`:
//
//   bits 0 to 17   where its threshold lies, in floats from `bits`; beyond the bucket if it has
//   none bits 18 to 25  the code of a magnitude that is not above the threshold
inline constexpr std::array<int32_t, kScaleBucketCount> kScaleBuckets = [] {
  std::array<int32_t, kScaleBucketCount> buckets = {};
  int32_t code = 127;
  int32_t bits = kScaleBucketMin;
  for (int32_t& bucket : buckets) {
    int32_t place = 1 << kScaleBucketShift;
    bucket = code << (kScaleBucketShift + 1);
    if (code < 255) {
      const auto threshold = std::bit_cast<int32_t>(kScaleThresholds[static_cast<size_t>(code)]);
      if (threshold - bits < place) {
        place = threshold - bits;
        ++code;
      }
    }
    bucket |= place;
    bits += 1 << kScaleBucketShift;
  }
  return buckets;
}();

static_assert(kScaleBuckets.front() >> (kScaleBucketShift + 1) == 127 &&
              kScaleBuckets.back() >> (kScaleBucketShift + 1) == 255);
static_assert(
    [] {
      for (size_t i = 128; i < kScaleThresholds.size(); ++i) {
        if (std::bit_cast<int32_t>(kScaleThresholds[i - 1]) >> kScaleBucketShift ==
            std::bit_cast<int32_t>(kScaleThresholds[i]) >> kScaleBucketShift) {
          return false;
        }
      }
      return true;
    }(),
    "a bucket has one threshold at most");

}  // namespace nibble
