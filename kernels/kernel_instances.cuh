// Choosing among the instances of a kernel's template, and loading them all: what every launcher
// whose kernels know their types when they are compiled does on the host.

#pragma once

#include <cuda_runtime_api.h>

#include <type_traits>

#include "kernels/block_format.h"

namespace nibble {

// Calls `visit` with a constant: [&](auto type) { Launch<type.value>(...); }. (Not with a template
// argument: of a lambda that captures nothing nvcc refuses one that no parameter has.)
template <class Visit>
auto WithFloatType(FloatType type, const Visit& visit) {
  switch (type) {
    case FloatType::kF16:
      return visit(std::integral_constant<FloatType, FloatType::kF16>());
    case FloatType::kBf16:
      return visit(std::integral_constant<FloatType, FloatType::kBf16>());
    case FloatType::kF32:
      break;
  }
  return visit(std::integral_constant<FloatType, FloatType::kF32>());
}

// Touches kernels, which loads their module onto the current GPU.
//
// Returns: the first error.
template <class... Kernels>
cudaError_t LoadKernels(Kernels... kernels) {
  cudaFuncAttributes attributes;
  cudaError_t error = cudaSuccess;
  ((error = error == cudaSuccess ? cudaFuncGetAttributes(&attributes, kernels) : error), ...);
  return error;
}

// Calls `load` with every type, as above, until one fails.
template <class Load>
cudaError_t LoadEachFloatType(const Load& load) {
  for (const FloatType type : {FloatType::kF32, FloatType::kF16, FloatType::kBf16}) {
    if (const cudaError_t error = WithFloatType(type, load); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
