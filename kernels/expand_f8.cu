#include <cuda_fp8.h>

#include "kernels/block_kernels.h"
#include "kernels/elements.cuh"
#include "kernels/kernel_instances.cuh"

namespace nibble {
namespace {

// F8Range without its types, which are template arguments.
struct Geometry {
  int64_t element_count;  // n
  int64_t first_index;
  int64_t columns;
  int64_t block_rows;
  int64_t block_columns;
  int64_t first_scale_row;
  int64_t scale_columns;
};

// The scale of an element and how many elements from it on have the same.
struct Run {
  float scale;
  int64_t length;
};

template <FloatType kScaleType>
__device__ __forceinline__ Run
RunAt(const Geometry& geometry,
      const typename Element<kScaleType>::Storage* scales,  // [scale rows, scale_columns]
      int64_t index) {                                      // of the range
  const int64_t position = geometry.first_index + index;
  const int64_t row = position / geometry.columns;
  const int64_t column = position - row * geometry.columns;
  const int64_t scale_row = row / geometry.block_rows - geometry.first_scale_row;
  const int64_t scale_column = column / geometry.block_columns;
  const int64_t run_end = min((scale_column + 1) * geometry.block_columns, geometry.columns);
  return {Element<kScaleType>::Widen(scales[scale_row * geometry.scale_columns + scale_column]),
          run_end - column};
}

// fp16 holds every value of both types.
template <F8Type kType>
__device__ __forceinline__ float Widen(uint32_t bits) {
  const __half_raw half = __nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(bits),
                                                  kType == F8Type::kE4M3 ? __NV_E4M3 : __NV_E5M2);
  return __half2float(__half(half));
}

// Eight elements, the first in the lowest byte; 0 beyond `remaining`.
template <bool kAligned>
__device__ __forceinline__ uint2 LoadBytes(const uint8_t* source, int64_t remaining) {
  if (kAligned && remaining >= kVectorElements) {
    return __ldcs(reinterpret_cast<const uint2*>(source));
  }
  uint2 bytes = {0, 0};
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    if (i < remaining) {
      (i < 4 ? bytes.x : bytes.y) |= static_cast<uint32_t>(source[i]) << (8 * (i % 4));
    }
  }
  return bytes;
}

// Each thread expands eight elements. It finds the first one's scale by division and goes on until
// the scale's block or the row ends, which in most threads is not before the last.
//
//   grid   ceil(n / 4096) CTAs
//   block  512 threads
//   bytes  1 read + 4 written an element; bound by memory bandwidth
template <F8Type kType, FloatType kScaleType, bool kAligned>
__global__ void __launch_bounds__(kCtaThreads)
    ExpandF8Kernel(Geometry geometry,
                   const uint8_t* __restrict__ source,  // [n]
                   const typename Element<kScaleType>::Storage* __restrict__ scales,
                   float* __restrict__ target) {  // [n]
  const int64_t index =
      (static_cast<int64_t>(blockIdx.x) * kCtaThreads + threadIdx.x) * kVectorElements;
  const int64_t remaining = geometry.element_count - index;
  if (remaining <= 0) {
    return;
  }
  const uint2 bytes = LoadBytes<kAligned>(source + index, remaining);
  Vector<FloatType::kF32> vector;
  Run run = RunAt<kScaleType>(geometry, scales, index);
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    if (run.length == 0 && i < remaining) {
      run = RunAt<kScaleType>(geometry, scales, index + i);
    }
    const uint32_t bits = (i < 4 ? bytes.x : bytes.y) >> (8 * (i % 4)) & 0xff;
    vector.elements[i] = Widen<kType>(bits) * run.scale;
    --run.length;
  }
  if (kAligned && remaining >= kVectorElements) {
#pragma unroll
    for (int i = 0; i < Vector<FloatType::kF32>::kPieces; ++i) {
      reinterpret_cast<uint4*>(target + index)[i] = vector.pieces[i];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    if (i < remaining) {
      target[index + i] = vector.elements[i];
    }
  }
}

template <F8Type kType, FloatType kScaleType>
void Launch(const ExpandF8Launch& launch, cudaStream_t stream) {
  using Storage = typename Element<kScaleType>::Storage;
  const F8Range& range = launch.range;
  const Geometry geometry = {range.element_count,  range.first_index,   range.columns,
                             range.block_rows,     range.block_columns, range.first_scale_row(),
                             range.scale_columns()};
  const bool aligned = IsAligned(launch.source, 8) && IsAligned(launch.target, 16);
  const auto kernel =
      aligned ? ExpandF8Kernel<kType, kScaleType, true> : ExpandF8Kernel<kType, kScaleType, false>;
  kernel<<<CtaCount(range.element_count), kCtaThreads, 0, stream>>>(
      geometry, launch.source, static_cast<const Storage*>(launch.scales), launch.target);
}

}  // namespace

cudaError_t LaunchExpandF8(const ExpandF8Launch& launch, cudaStream_t stream) {
  if (launch.range.element_count == 0) {
    return cudaSuccess;
  }
  WithFloatType(launch.range.scale_type, [&](auto scale_type) {
    if (launch.range.type == F8Type::kE4M3) {
      Launch<F8Type::kE4M3, scale_type.value>(launch, stream);
    } else {
      Launch<F8Type::kE5M2, scale_type.value>(launch, stream);
    }
  });
  return cudaGetLastError();
}

cudaError_t LoadExpandF8() {
  return LoadEachFloatType([](auto scale_type) {
    return LoadKernels(ExpandF8Kernel<F8Type::kE4M3, scale_type.value, true>,
                       ExpandF8Kernel<F8Type::kE4M3, scale_type.value, false>,
                       ExpandF8Kernel<F8Type::kE5M2, scale_type.value, true>,
                       ExpandF8Kernel<F8Type::kE5M2, scale_type.value, false>);
  });
}

}  // namespace nibble
