// Kernels that begin before the one in front of them ends, and clusters of CTAs.

#pragma once

#include <cuda_runtime.h>

namespace nibble {

// A kernel that was launched by LaunchEarly() begins when the one before it in the stream has
// called LetNextBegin() in all CTAs, or has ended. Until WaitForPrevious() has returned it may read
// weights, which no step writes, and nothing else; every thread calls it, whatever there is to do,
// so that a kernel never ends before those before it. Before Hopper both do nothing and no kernel
// begins early.
__device__ __forceinline__ void LetNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void WaitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Shared memory that a CTA of this device may have, and its multiprocessors.
struct DeviceShape {
  int shared_bytes = 0;
  int processors = 1;
  int capability = 0;  // Major version.
};

inline DeviceShape CurrentDeviceShape() {
  int ordinal = 0;
  DeviceShape device;
  cudaGetDevice(&ordinal);
  cudaDeviceGetAttribute(&device.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
  cudaDeviceGetAttribute(&device.processors, cudaDevAttrMultiProcessorCount, ordinal);
  cudaDeviceGetAttribute(&device.capability, cudaDevAttrComputeCapabilityMajor, ordinal);
  return device;
}

// Launches a kernel that calls WaitForPrevious(), as a cluster along the grid's last dimension if
// that is not 1.
template <typename Kernel, typename... Args>
cudaError_t LaunchEarly(const DeviceShape& device, Kernel kernel, dim3 grid, int threads,
                        int shared_bytes, cudaStream_t stream, const Args&... args) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned int count = 0;
  if (device.capability >= 9) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (grid.z > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {1, 1, grid.z};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned int>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

// Loads a kernel onto the current GPU and allows it all shared memory that there is beside its own.
template <typename Kernel>
cudaError_t TouchLarge(Kernel kernel) {
  cudaFuncAttributes attributes = {};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  return error != cudaSuccess
             ? error
             : cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    CurrentDeviceShape().shared_bytes -
                                        static_cast<int>(attributes.sharedSizeBytes));
}

}  // namespace nibble
