// The launchers of the CUDA kernels of double quantization: what cuda_ops.cc calls and
// scale_quantize.cu implements. They check nothing but the launch. Contract: scale_ops.h.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/scale_format.h"

namespace nibble {

struct MeanScaleLaunch {
  int64_t scale_count;  // b
  const float* scales;  // [b]
  float* offset;        // [1]
};

struct QuantizeScalesLaunch {
  int64_t scale_count;   // b
  const float* scales;   // [b]
  const float* offset;   // [1]
  uint8_t* scale_codes;  // [b]
  float* absmax2;        // [ceil(b / 256)]
};

struct DequantizeScalesLaunch {
  int64_t scale_count;         // b
  const uint8_t* scale_codes;  // [b]
  const float* absmax2;        // [ceil(b / 256)]
  const float* offset;         // [1]
  const float* map;            // [256]
  float* scales;               // [b]
};

cudaError_t LaunchMeanScale(const MeanScaleLaunch& launch, cudaStream_t stream);
cudaError_t LaunchQuantizeScales(const QuantizeScalesLaunch& launch, cudaStream_t stream);
cudaError_t LaunchDequantizeScales(const DequantizeScalesLaunch& launch, cudaStream_t stream);

// Touches every kernel of the file, which loads its module onto the current GPU.
cudaError_t LoadScaleQuantize();

}  // namespace nibble
