#include "kernels/block_codes.cuh"
#include "kernels/block_kernels.h"
#include "kernels/elements.cuh"
#include "kernels/kernel_instances.cuh"
#include "kernels/primitives.cuh"

namespace nibble {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kCtaWarps = kCtaThreads / kWarpThreads;

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
  StoreCodes<kAligned>(vector_codes, remaining, codes + index / 2);
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
  WithFloatType(launch.source_type, [&](auto type) {
    if (launch.codebook == Codebook::kNf4) {
      Launch<Codebook::kNf4, type.value>(launch, stream);
    } else {
      Launch<Codebook::kFp4, type.value>(launch, stream);
    }
  });
  return cudaGetLastError();
}

cudaError_t LoadBlockQuantize() {
  return LoadEachFloatType([](auto type) {
    return LoadKernels(BlockQuantizeKernel<Codebook::kNf4, type.value, true>,
                       BlockQuantizeKernel<Codebook::kNf4, type.value, false>,
                       BlockQuantizeKernel<Codebook::kFp4, type.value, true>,
                       BlockQuantizeKernel<Codebook::kFp4, type.value, false>);
  });
}

}  // namespace nibble
