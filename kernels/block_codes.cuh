// The codes of elements in registers, for every kernel that quantizes.

#pragma once

#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/elements.cuh"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "kernels/primitives.cuh"

namespace nibble {

template <Codebook kCodebook>
__device__ uint32_t Code(float x);

// A binary search among the 15 thresholds, without branches. NaN is above none of them: code 0.
template <>
__device__ __forceinline__ uint32_t Code<Codebook::kNf4>(float x) {
  constexpr auto t = kNf4Thresholds;
  const bool b3 = x > t[7];
  const bool b2 = x > (b3 ? t[11] : t[3]);
  const bool b1 = x > (b3 ? (b2 ? t[13] : t[9]) : (b2 ? t[5] : t[1]));
  const float low = b2 ? (b1 ? t[6] : t[4]) : (b1 ? t[2] : t[0]);
  const float high = b2 ? (b1 ? t[14] : t[12]) : (b1 ? t[10] : t[8]);
  const bool b0 = x > (b3 ? high : low);
  return (b3 ? 8u : 0u) | (b2 ? 4u : 0u) | (b1 ? 2u : 0u) | (b0 ? 1u : 0u);
}

template <>
__device__ __forceinline__ uint32_t Code<Codebook::kFp4>(float x) {
  constexpr auto t = kFp4Thresholds;
  constexpr uint32_t kOrder = 0x32547610;  // kFp4Order, 4 bits a rank.
  static_assert((kOrder & 15) == kFp4Order[0] && (kOrder >> 4 & 15) == kFp4Order[1] &&
                (kOrder >> 8 & 15) == kFp4Order[2] && (kOrder >> 12 & 15) == kFp4Order[3] &&
                (kOrder >> 16 & 15) == kFp4Order[4] && (kOrder >> 20 & 15) == kFp4Order[5] &&
                (kOrder >> 24 & 15) == kFp4Order[6] && kOrder >> 28 == kFp4Order[7]);
  const float magnitude = fabsf(x);
  const bool b2 = magnitude > t[3];
  const bool b1 = magnitude > (b2 ? t[5] : t[1]);
  const bool b0 = magnitude > (b2 ? (b1 ? t[6] : t[4]) : (b1 ? t[2] : t[0]));
  const uint32_t rank = (b2 ? 4u : 0u) | (b1 ? 2u : 0u) | (b0 ? 1u : 0u);
  return (kOrder >> (4 * rank) & 7u) | (x < 0.0f ? 8u : 0u);
}

// Eight codes, the first in the high nibble of the lowest byte.
template <Codebook kCodebook>
__device__ __forceinline__ uint32_t CodesOf(const float (&values)[kVectorElements],
                                            float reciprocal) {
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    codes |= Code<kCodebook>(MultiplyFlushed(values[i], reciprocal)) << (4 * (i ^ 1));
  }
  return codes;
}

// Stores the codes of a thread's eight elements, `remaining` of them before the end of the tensor.
template <bool kAligned>
__device__ __forceinline__ void StoreCodes(uint32_t codes, int64_t remaining, uint8_t* target) {
  if (kAligned && remaining >= kVectorElements) {
    *reinterpret_cast<uint32_t*>(target) = codes;
    return;
  }
#pragma unroll
  for (int i = 0; i < kVectorElements / 2; ++i) {
    if (2 * i < remaining) {
      target[i] = static_cast<uint8_t>(codes >> (8 * i));
    }
  }
}

}  // namespace nibble
