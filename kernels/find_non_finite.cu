#include "kernels/block_kernels.h"
#include "kernels/elements.cuh"
#include "kernels/kernel_instances.cuh"

namespace nibble {
namespace {

// Each thread looks at eight elements and reports only where one is not finite.
//
//   grid   ceil(n / 4096) CTAs
//   block  512 threads
//   bytes  2 (4 for fp32) read an element; bound by memory bandwidth
template <FloatType kType, bool kAligned>
__global__ void __launch_bounds__(kCtaThreads)
    FindNonFiniteKernel(const typename Element<kType>::Storage* __restrict__ source,  // [n]
                        int64_t element_count,                                        // n
                        unsigned long long* __restrict__ first_non_finite) {          // [1]
  const int64_t index =
      (static_cast<int64_t>(blockIdx.x) * kCtaThreads + threadIdx.x) * kVectorElements;
  if (index >= element_count) {
    return;
  }
  float values[kVectorElements];
  LoadVector<kType, kAligned>(source + index, element_count - index, values);
  ReportNonFinite(values, index, first_non_finite);
}

template <FloatType kType>
void Launch(const FindNonFiniteLaunch& launch, cudaStream_t stream) {
  using Storage = typename Element<kType>::Storage;
  const auto kernel = IsAligned(launch.source, 16) ? FindNonFiniteKernel<kType, true>
                                                   : FindNonFiniteKernel<kType, false>;
  kernel<<<CtaCount(launch.element_count), kCtaThreads, 0, stream>>>(
      static_cast<const Storage*>(launch.source), launch.element_count,
      reinterpret_cast<unsigned long long*>(launch.first_non_finite));
}

}  // namespace

cudaError_t LaunchFindNonFinite(const FindNonFiniteLaunch& launch, cudaStream_t stream) {
  // kAllFinite is all ones.
  const cudaError_t error =
      cudaMemsetAsync(launch.first_non_finite, 0xff, sizeof(uint64_t), stream);
  if (error != cudaSuccess || launch.element_count == 0) {
    return error;
  }
  WithFloatType(launch.source_type, [&](auto type) { Launch<type.value>(launch, stream); });
  return cudaGetLastError();
}

cudaError_t LoadFindNonFinite() {
  return LoadEachFloatType([](auto type) {
    return LoadKernels(FindNonFiniteKernel<type.value, true>,
                       FindNonFiniteKernel<type.value, false>);
  });
}

}  // namespace nibble
