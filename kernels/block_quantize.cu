#include "kernels/block_kernels.h"
#include "kernels/elements.cuh"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "kernels/primitives.cuh"

namespace nibble {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kCtaWarps = kCtaThreads / kWarpThreads;

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

// The largest of `value` over the `group_threads` threads that share a block; all of a CTA take
// part.
//
// Requires: group_threads is a power of two, the same in all threads.
__device__ __forceinline__ float GroupMax(float value, int group_threads) {
  for (int offset = min(group_threads, kWarpThreads) / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  if (group_threads <= kWarpThreads) {
    return value;
  }
  __shared__ float warp_max[kCtaWarps];
  const int warp = threadIdx.x / kWarpThreads;
  if (threadIdx.x % kWarpThreads == 0) {
    warp_max[warp] = value;
  }
  __syncthreads();
  const int group_warps = group_threads / kWarpThreads;
  const int first_warp = warp / group_warps * group_warps;
  for (int i = 0; i < group_warps; ++i) {
    value = fmaxf(value, warp_max[first_warp + i]);
  }
  return value;
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

// Each thread holds eight elements; the threads of a block agree on its scale and store 4 bytes of
// codes each. One read of the source, so the elements stay in registers between the two.
//
//   grid   ceil(n / 4096) CTAs
//   block  512 threads
//   bytes  2 (4 for fp32) read + 0.5 + 4 / block_size written an element; bound by memory bandwidth
template <Codebook kCodebook, FloatType kType, bool kAligned>
__global__ void __launch_bounds__(kCtaThreads)
    BlockQuantizeKernel(const typename Element<kType>::Storage* __restrict__ source,  // [n]
                        int64_t element_count,                                        // n
                        int block_shift,              // log2(block_size)
                        uint8_t* __restrict__ codes,  // [(n + 1) / 2]
                        float* __restrict__ scales,   // [ceil(n / block_size)]
                        unsigned long long* __restrict__ first_non_finite) {  // [1] or null
  const int64_t index =
      (static_cast<int64_t>(blockIdx.x) * kCtaThreads + threadIdx.x) * kVectorElements;
  const int64_t remaining = element_count - index;
  float values[kVectorElements];
  LoadVector<kType, kAligned>(source + index, remaining, values);
  if (first_non_finite != nullptr) {
    ReportNonFinite(values, index, first_non_finite);
  }

  // fmaxf ignores NaN, so a full block of NaN keeps this start; zeros that pad a short one do not.
  float largest = -FLT_MAX;
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    largest = fmaxf(largest, fabsf(values[i]));
  }
  largest = GroupMax(largest, (1 << block_shift) / kVectorElements);
  const float scale = fabsf(largest) < FLT_MIN ? 0.0f : largest;
  const uint32_t vector_codes = CodesOf<kCodebook>(values, ReciprocalApproximate(scale));

  const int64_t block = index >> block_shift;
  if (remaining > 0 && block << block_shift == index) {
    scales[block] = scale;
  }
  uint8_t* const target = codes + index / 2;
  if (kAligned && remaining >= kVectorElements) {
    *reinterpret_cast<uint32_t*>(target) = vector_codes;
    return;
  }
#pragma unroll
  for (int i = 0; i < kVectorElements / 2; ++i) {
    if (2 * i < remaining) {
      target[i] = static_cast<uint8_t>(vector_codes >> (8 * i));
    }
  }
}

template <Codebook kCodebook, FloatType kType>
void Launch(const BlockQuantizeLaunch& launch, cudaStream_t stream) {
  using Storage = typename Element<kType>::Storage;
  const bool aligned = IsAligned(launch.source, 16) && IsAligned(launch.codes, 4);
  const auto kernel = aligned ? BlockQuantizeKernel<kCodebook, kType, true>
                              : BlockQuantizeKernel<kCodebook, kType, false>;
  kernel<<<CtaCount(launch.element_count), kCtaThreads, 0, stream>>>(
      static_cast<const Storage*>(launch.source), launch.element_count,
      BlockShift(launch.block_size), launch.codes, launch.scales,
      reinterpret_cast<unsigned long long*>(launch.first_non_finite));
}

template <Codebook kCodebook>
void Launch(const BlockQuantizeLaunch& launch, cudaStream_t stream) {
  switch (launch.source_type) {
    case FloatType::kF32:
      return Launch<kCodebook, FloatType::kF32>(launch, stream);
    case FloatType::kF16:
      return Launch<kCodebook, FloatType::kF16>(launch, stream);
    case FloatType::kBf16:
      return Launch<kCodebook, FloatType::kBf16>(launch, stream);
  }
}

template <Codebook kCodebook, FloatType kType>
cudaError_t Load() {
  cudaFuncAttributes attributes;
  const cudaError_t error =
      cudaFuncGetAttributes(&attributes, BlockQuantizeKernel<kCodebook, kType, true>);
  return error != cudaSuccess
             ? error
             : cudaFuncGetAttributes(&attributes, BlockQuantizeKernel<kCodebook, kType, false>);
}

}  // namespace

cudaError_t LaunchBlockQuantize(const BlockQuantizeLaunch& launch, cudaStream_t stream) {
  if (launch.first_non_finite != nullptr) {  // kAllFinite is all ones.
    const cudaError_t error =
        cudaMemsetAsync(launch.first_non_finite, 0xff, sizeof(uint64_t), stream);
    if (error != cudaSuccess) {
      return error;
    }
  }
  if (launch.element_count == 0) {
    return cudaSuccess;
  }
  if (launch.codebook == Codebook::kNf4) {
    Launch<Codebook::kNf4>(launch, stream);
  } else {
    Launch<Codebook::kFp4>(launch, stream);
  }
  return cudaGetLastError();
}

cudaError_t LoadBlockQuantize() {
  for (const auto load :
       {Load<Codebook::kNf4, FloatType::kF32>, Load<Codebook::kNf4, FloatType::kF16>,
        Load<Codebook::kNf4, FloatType::kBf16>, Load<Codebook::kFp4, FloatType::kF32>,
        Load<Codebook::kFp4, FloatType::kF16>, Load<Codebook::kFp4, FloatType::kBf16>}) {
    if (const cudaError_t error = load(); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
