#include "kernels/block_kernels.h"
#include "kernels/elements.cuh"
#include "kernels/kernel_instances.cuh"
#include "kernels/primitives.cuh"

namespace nibble {
namespace {

// Each thread expands 4 bytes of codes to eight elements. The table lies in shared memory, where
// sixteen words are in sixteen banks: lanes with different codes do not wait for each other.
//
//   grid   ceil(n / 4096) CTAs
//   block  512 threads
//   bytes  0.5 + 4 / block_size read + 2 (4 for fp32) written an element; bound by memory bandwidth
template <FloatType kType, bool kAligned>
__global__ void __launch_bounds__(kCtaThreads)
    BlockDequantizeKernel(CodeTable table, const uint8_t* __restrict__ codes,  // [(n + 1) / 2]
                          const float* __restrict__ scales,  // [ceil(n / block_size)]
                          int64_t element_count,             // n
                          int block_shift,                   // log2(block_size)
                          typename Element<kType>::Storage* __restrict__ target) {  // [n]
  __shared__ float values[kCodeValues];
  if (threadIdx.x < kCodeValues) {
    values[threadIdx.x] = table.values[threadIdx.x];
  }
  __syncthreads();
  const int64_t index =
      (static_cast<int64_t>(blockIdx.x) * kCtaThreads + threadIdx.x) * kVectorElements;
  const int64_t remaining = element_count - index;
  if (remaining <= 0) {
    return;
  }
  const uint32_t vector_codes = LoadCodes<kAligned>(codes + index / 2, remaining);
  const float scale = scales[index >> block_shift];
  Vector<kType> vector;
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    const float value = values[vector_codes >> (4 * (i ^ 1)) & 15];
    vector.elements[i] = Element<kType>::Narrow(MultiplyFlushed(value, scale));
  }
  if (kAligned && remaining >= kVectorElements) {
#pragma unroll
    for (int i = 0; i < Vector<kType>::kPieces; ++i) {
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

template <FloatType kType>
void Launch(const BlockDequantizeLaunch& launch, cudaStream_t stream) {
  using Storage = typename Element<kType>::Storage;
  const bool aligned = IsAligned(launch.target, 16) && IsAligned(launch.codes, 4);
  const auto kernel =
      aligned ? BlockDequantizeKernel<kType, true> : BlockDequantizeKernel<kType, false>;
  kernel<<<CtaCount(launch.element_count), kCtaThreads, 0, stream>>>(
      CodeTableOf(launch.codebook), launch.codes, launch.scales, launch.element_count,
      BlockShift(launch.block_size), static_cast<Storage*>(launch.target));
}

}  // namespace

cudaError_t LaunchBlockDequantize(const BlockDequantizeLaunch& launch, cudaStream_t stream) {
  if (launch.element_count == 0) {
    return cudaSuccess;
  }
  WithFloatType(launch.target_type, [&](auto type) { Launch<type.value>(launch, stream); });
  return cudaGetLastError();
}

cudaError_t LoadBlockDequantize() {
  return LoadEachFloatType([](auto type) {
    return LoadKernels(BlockDequantizeKernel<type.value, true>,
                       BlockDequantizeKernel<type.value, false>);
  });
}

}  // namespace nibble
