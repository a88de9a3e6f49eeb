// A step's arguments as kernels take them: plain pointers and 32-bit shapes, and the number of rows
// that is read from device memory.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/matrix.h"

namespace nibble {

inline constexpr int kWarpThreads = 32;
inline constexpr unsigned int kAllLanes = 0xffffffffu;

template <typename T>
T* PointerTo(DeviceSpan span) {
  return std::bit_cast<T*>(span.address());
}

// How many rows, or sequences, are computed. A count beyond the bound is a caller's mistake that
// would reach other memory, so it counts as the bound.
struct LiveCount {
  const int32_t* live;  // [1]
  int bound;

  __device__ __forceinline__ int Read() const { return min(*live, bound); }
};

inline LiveCount LiveCountOf(const RowCount& rows) {
  return {PointerTo<const int32_t>(rows.live), static_cast<int>(rows.bound)};
}

// Activations [rows, groups, width].
struct Rows {
  float* data;
  int64_t row_stride;
  int64_t group_stride;
  int groups;
  int width;

  __device__ __forceinline__ float* At(int64_t row, int64_t group = 0) const {
    return data + row * row_stride + group * group_stride;
  }
};

inline Rows RowsOf(const Activations& activations) {
  return {PointerTo<float>(activations.span), activations.row_stride, activations.group_stride,
          static_cast<int>(activations.groups), static_cast<int>(activations.width)};
}

// A vector of weights. Its type is the same for a whole launch, so the branch costs nothing that
// an instance for each type would save.
struct WeightElements {
  const void* data;  // Null: there are none.
  FloatType type;

  __device__ __forceinline__ float At(int64_t index) const {
    switch (type) {
      case FloatType::kF16:
        return __half2float(static_cast<const __half*>(data)[index]);
      case FloatType::kBf16:
        return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]);
      default:
        return static_cast<const float*>(data)[index];
    }
  }
};

inline WeightElements WeightElementsOf(const WeightVector& vector) {
  return {vector.span.empty() ? nullptr : PointerTo<const void>(vector.span), vector.type};
}

// The sum of a warp's values, in every lane, in one order: all lanes add the same tree.
__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// CTAs of `threads` threads for `count` items.
inline unsigned int CtasFor(int64_t count, int64_t threads) {
  return static_cast<unsigned int>(CeilDivide(count, threads));
}

inline bool IsAligned(uint64_t address, uint64_t alignment) { return address % alignment == 0; }

// Touches kernels, which loads them onto the current GPU.
template <typename... Kernels>
cudaError_t Touch(Kernels... kernels) {
  cudaFuncAttributes attributes;
  cudaError_t error = cudaSuccess;
  (void)(((error = cudaFuncGetAttributes(&attributes, kernels)) == cudaSuccess) && ...);
  return error;
}

}  // namespace nibble
