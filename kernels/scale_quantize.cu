#include <cfloat>

#include "kernels/kernel_instances.cuh"
#include "kernels/primitives.cuh"
#include "kernels/scale_kernels.h"

namespace nibble {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kMeanThreads = 1024;
static_assert(kMeanThreads == kMeanLanes, "a thread is a lane");

// One thread a lane, in the order that scale_format.h fixes. One CTA: scales are a 32nd of the
// source, so that a single multiprocessor reads them faster than the source arrives, and nothing
// has to be passed between CTAs.
//
//   grid   1 CTA
//   block  1024 threads
//   bytes  4 read a scale; bound by the loads that one multiprocessor can have in flight
__global__ void __launch_bounds__(kMeanThreads)
    MeanScaleKernel(const float* __restrict__ scales,  // [b]
                    int64_t scale_count,               // b > 0
                    float* __restrict__ offset) {      // [1]
  constexpr int kRows = 8;  // Loaded before the first is added. A guess: 32 KiB in flight.
  double lane = 0;
  int64_t index = threadIdx.x;
  for (; index + (kRows - 1) * kMeanThreads < scale_count; index += kRows * kMeanThreads) {
    float values[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      values[row] = scales[index + row * kMeanThreads];
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      lane += static_cast<double>(values[row]);
    }
  }
  for (; index < scale_count; index += kMeanThreads) {
    lane += static_cast<double>(scales[index]);
  }

  __shared__ double lanes[kMeanThreads];
  lanes[threadIdx.x] = lane;
  for (int stride = kMeanThreads / 2; stride > 0; stride /= 2) {
    __syncthreads();
    if (threadIdx.x < stride) {
      lanes[threadIdx.x] += lanes[threadIdx.x + stride];
    }
  }
  if (threadIdx.x == 0) {
    const auto mean = static_cast<float>(lanes[0] / static_cast<double>(scale_count));
    *offset = mean == mean ? mean : __uint_as_float(kCanonicalNanBits);
  }
}

// The thresholds by value, so that they arrive in constant memory with the other arguments.
struct ScaleThresholds {
  float values[kScaleMapSize - 1];
};

constexpr int kQuantizeThreads = 256;
constexpr int kQuantizeWarps = kQuantizeThreads / kWarpThreads;
constexpr int kLaneScales = kScaleBlockSize / kWarpThreads;
static_assert(kScaleBlockSize % kWarpThreads == 0, "a warp holds one block");

// A warp quantizes one block: lane i holds scales i, i + 32, ..., so that loads and stores are
// whole lines. A code is found in eight steps of a binary search, by shared memory.
//
//   grid   ceil(b / 2048) CTAs
//   block  256 threads
//   bytes  4 read + 1 + 4 / 256 written a scale; bound by the latency of the search
__global__ void __launch_bounds__(kQuantizeThreads)
    QuantizeScalesKernel(ScaleThresholds thresholds,
                         const float* __restrict__ scales,   // [b]
                         int64_t scale_count,                // b
                         const float* __restrict__ offset,   // [1]
                         uint8_t* __restrict__ scale_codes,  // [b]
                         float* __restrict__ absmax2) {      // [ceil(b / 256)]
  __shared__ float table[kScaleMapSize];
  if (threadIdx.x < kScaleMapSize - 1) {
    table[threadIdx.x] = thresholds.values[threadIdx.x];
  }
  __syncthreads();
  const int lane = threadIdx.x % kWarpThreads;
  const int64_t block =
      static_cast<int64_t>(blockIdx.x) * kQuantizeWarps + threadIdx.x / kWarpThreads;
  const int64_t begin = block * kScaleBlockSize;
  if (begin >= scale_count) {
    return;  // The whole warp.
  }
  const float mean = *offset;
  float values[kLaneScales];
  // fmaxf ignores NaN, so a full block of NaN keeps this start; zeros that pad a short one do not.
  float largest = -FLT_MAX;
#pragma unroll
  for (int i = 0; i < kLaneScales; ++i) {
    const int64_t index = begin + i * kWarpThreads + lane;
    values[i] = index < scale_count ? scales[index] - mean : 0.0f;
    largest = fmaxf(largest, fabsf(values[i]));
  }
#pragma unroll
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
  }
  largest = fabsf(largest) < FLT_MIN ? 0.0f : largest;
  if (lane == 0) {
    absmax2[block] = largest;
  }
  const float reciprocal = ReciprocalApproximate(largest);
#pragma unroll
  for (int i = 0; i < kLaneScales; ++i) {
    const int64_t index = begin + i * kWarpThreads + lane;
    const float x = MultiplyFlushed(values[i], reciprocal);
    int code = 0;  // Thresholds that x is above; NaN is above none.
#pragma unroll
    for (int step = kScaleMapSize / 2; step > 0; step /= 2) {
      code += x > table[code + step - 1] ? step : 0;
    }
    if (index < scale_count) {
      scale_codes[index] = static_cast<uint8_t>(code);
    }
  }
}

// One thread a scale. The map is small enough to stay in the first-level cache.
//
//   grid   ceil(b / 256) CTAs
//   block  256 threads, a block of scales
//   bytes  1 + 4 / 256 read + 4 written a scale; bound by memory bandwidth
__global__ void __launch_bounds__(kScaleBlockSize)
    DequantizeScalesKernel(const uint8_t* __restrict__ scale_codes,  // [b]
                           const float* __restrict__ absmax2,        // [ceil(b / 256)]
                           const float* __restrict__ offset,         // [1]
                           const float* __restrict__ map,            // [256]
                           int64_t scale_count,                      // b
                           float* __restrict__ scales) {             // [b]
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kScaleBlockSize + threadIdx.x;
  if (index < scale_count) {
    const float product = MultiplyFlushed(map[scale_codes[index]], absmax2[blockIdx.x]);
    scales[index] = __fadd_rn(product, *offset);  // Two roundings, as in bitsandbytes.
  }
}

}  // namespace

cudaError_t LaunchMeanScale(const MeanScaleLaunch& launch, cudaStream_t stream) {
  if (launch.scale_count == 0) {
    return cudaMemsetAsync(launch.offset, 0, sizeof(float), stream);
  }
  MeanScaleKernel<<<1, kMeanThreads, 0, stream>>>(launch.scales, launch.scale_count, launch.offset);
  return cudaGetLastError();
}

cudaError_t LaunchQuantizeScales(const QuantizeScalesLaunch& launch, cudaStream_t stream) {
  if (launch.scale_count == 0) {
    return cudaSuccess;
  }
  ScaleThresholds thresholds;
  for (int i = 0; i < kScaleMapSize - 1; ++i) {
    thresholds.values[i] = kScaleThresholds[i];
  }
  const auto ctas =
      static_cast<unsigned int>(CeilDivide(ScaleBlockCount(launch.scale_count), kQuantizeWarps));
  QuantizeScalesKernel<<<ctas, kQuantizeThreads, 0, stream>>>(thresholds, launch.scales,
                                                              launch.scale_count, launch.offset,
                                                              launch.scale_codes, launch.absmax2);
  return cudaGetLastError();
}

cudaError_t LaunchDequantizeScales(const DequantizeScalesLaunch& launch, cudaStream_t stream) {
  if (launch.scale_count == 0) {
    return cudaSuccess;
  }
  const auto ctas = static_cast<unsigned int>(ScaleBlockCount(launch.scale_count));
  DequantizeScalesKernel<<<ctas, kScaleBlockSize, 0, stream>>>(launch.scale_codes, launch.absmax2,
                                                               launch.offset, launch.map,
                                                               launch.scale_count, launch.scales);
  return cudaGetLastError();
}

cudaError_t LoadScaleQuantize() {
  return LoadKernels(MeanScaleKernel, QuantizeScalesKernel, DequantizeScalesKernel);
}

}  // namespace nibble
