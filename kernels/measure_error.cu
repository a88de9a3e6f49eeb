#include "kernels/block_kernels.h"
#include "kernels/elements.cuh"
#include "kernels/kernel_instances.cuh"
#include "kernels/primitives.cuh"

namespace nibble {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kPieces = kErrorChunkElements / kErrorPieceElements;
constexpr int kChunkThreads = kPieces * kWarpThreads;
constexpr int kRows = kErrorPieceElements / kErrorLanes;
static_assert(kErrorLanes == kWarpThreads * kVectorElements, "a warp reads a row at once");

// The lanes that a thread holds.
struct Lanes {
  double squared_error[kVectorElements] = {};
  double squared[kVectorElements] = {};
  float error_max = 0.0f;
};

// The square of an fp32 number is exact in fp64, so it makes no difference that this is fused.
template <FloatType kType, bool kAligned>
__device__ __forceinline__ void AddVector(const typename Element<kType>::Storage* source,  // [8]
                                          const uint8_t* codes,                            // [4]
                                          float scale, const float* codebook,              // [16]
                                          int64_t remaining, Lanes& lanes) {
  float values[kVectorElements];
  LoadVector<kType, kAligned>(source, remaining, values);
  const uint32_t vector_codes = LoadCodes<kAligned>(codes, remaining);
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    if (i < remaining) {
      const float decoded = MultiplyFlushed(codebook[vector_codes >> (4 * (i ^ 1)) & 15], scale);
      const float error = values[i] - decoded;
      const auto wide_error = static_cast<double>(error);
      const auto wide_value = static_cast<double>(values[i]);
      lanes.squared_error[i] = fma(wide_error, wide_error, lanes.squared_error[i]);
      lanes.squared[i] = fma(wide_value, wide_value, lanes.squared[i]);
      lanes.error_max = fmaxf(lanes.error_max, fabsf(error));  // Ignores NaN.
    }
  }
}

// Adds neighbours of the 256 lanes of a warp until one is left, which every thread then has.
__device__ __forceinline__ double AddNeighbours(const double (&lanes)[kVectorElements]) {
  double sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
               ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
#pragma unroll
  for (int distance = 1; distance < kWarpThreads; distance *= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  }
  return sum;
}

__device__ __forceinline__ float WarpMax(float value) {
#pragma unroll
  for (int distance = 1; distance < kWarpThreads; distance *= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

// A CTA measures a chunk, a warp a piece, in the order that error_sums.h fixes: a thread holds
// eight neighbouring lanes, which are the eight elements that it reads of each row.
//
//   grid   ceil(n / 65536) CTAs
//   block  256 threads
//   bytes  2 (4 for fp32) + 0.5 + 4 / block_size read an element; bound by memory bandwidth where
//          fp64 runs at half the rate of fp32, and elsewhere by conversions to it
template <FloatType kType, bool kAligned>
__global__ void __launch_bounds__(kChunkThreads)
    MeasureErrorKernel(CodeTable table,
                       const typename Element<kType>::Storage* __restrict__ source,  // [n]
                       const uint8_t* __restrict__ codes,  // [(n + 1) / 2]
                       const float* __restrict__ scales,   // [ceil(n / block_size)]
                       int64_t element_count,              // n
                       int block_shift,                    // log2(block_size)
                       ErrorSums* __restrict__ sums) {     // [ceil(n / 65536)]
  __shared__ float codebook[kCodeValues];
  if (threadIdx.x < kCodeValues) {
    codebook[threadIdx.x] = table.values[threadIdx.x];
  }
  __syncthreads();
  const int warp = threadIdx.x / kWarpThreads;
  const int thread = threadIdx.x % kWarpThreads;
  const int64_t piece =
      blockIdx.x * kErrorChunkElements + static_cast<int64_t>(warp) * kErrorPieceElements;
  const int64_t first = piece + thread * kVectorElements;
  Lanes lanes;
  if (piece + kErrorPieceElements <= element_count) {
#pragma unroll 4
    for (int row = 0; row < kRows; ++row) {
      const int64_t index = first + row * kErrorLanes;
      AddVector<kType, kAligned>(source + index, codes + index / 2, scales[index >> block_shift],
                                 codebook, kVectorElements, lanes);
    }
  } else {
    for (int64_t index = first; index < element_count; index += kErrorLanes) {
      if (index >= piece + kErrorPieceElements) {
        break;
      }
      AddVector<kType, kAligned>(source + index, codes + index / 2, scales[index >> block_shift],
                                 codebook, element_count - index, lanes);
    }
  }

  __shared__ double squared_error[kPieces];
  __shared__ double squared[kPieces];
  __shared__ float error_max[kPieces];
  const double warp_squared_error = AddNeighbours(lanes.squared_error);
  const double warp_squared = AddNeighbours(lanes.squared);
  const float warp_error_max = WarpMax(lanes.error_max);
  if (thread == 0) {
    squared_error[warp] = warp_squared_error;
    squared[warp] = warp_squared;
    error_max[warp] = warp_error_max;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    ErrorSums chunk;
    for (int i = 0; i < kPieces; ++i) {
      chunk.squared_error += squared_error[i];
      chunk.squared += squared[i];
      chunk.error_max = fmaxf(chunk.error_max, error_max[i]);
    }
    sums[blockIdx.x] = chunk;
  }
}

template <FloatType kType>
void Launch(const MeasureErrorLaunch& launch, cudaStream_t stream) {
  using Storage = typename Element<kType>::Storage;
  const bool aligned = IsAligned(launch.source, 16) && IsAligned(launch.codes, 4);
  const auto kernel = aligned ? MeasureErrorKernel<kType, true> : MeasureErrorKernel<kType, false>;
  const auto ctas = static_cast<unsigned int>(ErrorChunkCount(launch.element_count));
  kernel<<<ctas, kChunkThreads, 0, stream>>>(
      CodeTableOf(launch.codebook), static_cast<const Storage*>(launch.source), launch.codes,
      launch.scales, launch.element_count, BlockShift(launch.block_size), launch.sums);
}

}  // namespace

cudaError_t LaunchMeasureError(const MeasureErrorLaunch& launch, cudaStream_t stream) {
  if (launch.element_count == 0) {
    return cudaSuccess;
  }
  WithFloatType(launch.source_type, [&](auto type) { Launch<type.value>(launch, stream); });
  return cudaGetLastError();
}

cudaError_t LoadMeasureError() {
  return LoadEachFloatType([](auto type) {
    return LoadKernels(MeasureErrorKernel<type.value, true>, MeasureErrorKernel<type.value, false>);
  });
}

}  // namespace nibble
