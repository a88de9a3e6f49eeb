// Eight elements of a tensor in a thread's registers: the unit of every block kernel, 16 bytes of a
// 16-bit type and 4 bytes of codes.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cfloat>
#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"

namespace nibble {

inline constexpr int kVectorElements = 8;
inline constexpr int kCtaThreads =
    512;  // 4 CTAs fill a multiprocessor; the largest block fits one.
static_assert(kBlockSizeMax == kCtaThreads * kVectorElements, "a block never straddles CTAs");
static_assert(kBlockSizeMin % kVectorElements == 0, "a vector never straddles blocks");

template <FloatType kType>
struct Element;

template <>
struct Element<FloatType::kF32> {
  using Storage = float;
  __device__ static float Widen(float value) { return value; }
  __device__ static float Narrow(float value) { return value; }
};

template <>
struct Element<FloatType::kF16> {
  using Storage = __half;
  __device__ static float Widen(__half value) { return __half2float(value); }
  __device__ static __half Narrow(float value) { return __float2half_rn(value); }
};

template <>
struct Element<FloatType::kBf16> {
  using Storage = __nv_bfloat16;
  __device__ static float Widen(__nv_bfloat16 value) { return __bfloat162float(value); }
  __device__ static __nv_bfloat16 Narrow(float value) { return __float2bfloat16_rn(value); }
};

// The bytes of eight elements as vector registers.
template <FloatType kType>
union Vector {
  static constexpr int kPieces = kVectorElements * sizeof(typename Element<kType>::Storage) / 16;
  uint4 pieces[kPieces];
  typename Element<kType>::Storage elements[kVectorElements];
  __device__ Vector() {}
};

// Reads eight elements; those at and beyond `remaining` are 0. Each is read once, so the lines are
// marked as the first to leave the cache.
//
// Requires: if kAligned, `source` is aligned to 16 bytes.
template <FloatType kType, bool kAligned>
__device__ __forceinline__ void LoadVector(const typename Element<kType>::Storage* source,  // [8]
                                           int64_t remaining, float (&values)[kVectorElements]) {
  if (kAligned && remaining >= kVectorElements) {
    Vector<kType> vector;
#pragma unroll
    for (int i = 0; i < Vector<kType>::kPieces; ++i) {
      vector.pieces[i] = __ldcs(reinterpret_cast<const uint4*>(source) + i);
    }
#pragma unroll
    for (int i = 0; i < kVectorElements; ++i) {
      values[i] = Element<kType>::Widen(vector.elements[i]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    values[i] = i < remaining ? Element<kType>::Widen(source[i]) : 0.0f;
  }
}

// Lowers `cell` to the index of the first NaN or Inf among eight elements, the first of which is
// element `first_index`.
__device__ __forceinline__ void ReportNonFinite(const float (&values)[kVectorElements],
                                                int64_t first_index, unsigned long long* cell) {
  bool finite = true;
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    finite = finite && fabsf(values[i]) <= FLT_MAX;
  }
  if (finite) {
    return;
  }
#pragma unroll
  for (int i = kVectorElements - 1; i >= 0; --i) {
    if (!(fabsf(values[i]) <= FLT_MAX)) {
      atomicMin(cell, static_cast<unsigned long long>(first_index + i));
    }
  }
}

// Reads eight codes, the first in the high nibble of the lowest byte; 0 beyond `remaining`. They
// are read once, as in LoadVector().
//
// Requires: if kAligned, `codes` is aligned to 4 bytes.
template <bool kAligned>
__device__ __forceinline__ uint32_t LoadCodes(const uint8_t* codes,  // [4]
                                              int64_t remaining) {
  if (kAligned && remaining >= kVectorElements) {
    return __ldcs(reinterpret_cast<const unsigned int*>(codes));
  }
  uint32_t vector_codes = 0;
#pragma unroll
  for (int i = 0; i < kVectorElements / 2; ++i) {
    if (2 * i < remaining) {
      vector_codes |= static_cast<uint32_t>(codes[i]) << (8 * i);
    }
  }
  return vector_codes;
}

inline constexpr int kCodeValues = 16;

// A codebook by value, so that it arrives in constant memory with a kernel's other arguments.
struct CodeTable {
  float values[kCodeValues];
};

inline CodeTable CodeTableOf(Codebook codebook) {
  const auto& values = codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
  CodeTable table;
  for (int i = 0; i < kCodeValues; ++i) {
    table.values[i] = values[i];
  }
  return table;
}

// CTAs for one thread per vector.
inline unsigned int CtaCount(int64_t element_count) {
  return static_cast<unsigned int>(CeilDivide(element_count, kCtaThreads * kVectorElements));
}

// A 64-bit division by a variable is a hundred instructions; block sizes are powers of two.
inline int BlockShift(int block_size) {
  return std::countr_zero(static_cast<unsigned>(block_size));
}

inline bool IsAligned(const void* address, uintptr_t alignment) {
  return reinterpret_cast<uintptr_t>(address) % alignment == 0;
}

}  // namespace nibble
