// The operations on a tensor's scales: double quantization and back. scale_format.h draws the
// format; ops.h has the interface.

#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "kernels/scale_format.h"

namespace nibble {

// Stores the mean of a tensor's scales, the same bits on every device (kMeanLanes); 0 if there are
// none.
struct MeanScaleArgs {
  int64_t scale_count = 0;  // b
  DeviceSpan scales;        // fp32 [b]
  DeviceSpan offset;        // fp32 [1], written
};

// Quantizes scales in blocks of 256 with kScaleMap. A range that starts on such a block gives the
// bytes that quantizing the whole would give there.
struct QuantizeScalesArgs {
  int64_t scale_count = 0;  // b
  DeviceSpan scales;        // fp32 [b]
  DeviceSpan offset;        // fp32 [1], read
  DeviceSpan scale_codes;   // uint8 [b], written
  DeviceSpan absmax2;       // fp32 [ceil(b / 256)], written
};

// The fp32 scales that a double-quantized tensor stands for. Dequantize() takes them from there.
struct DequantizeScalesArgs {
  int64_t scale_count = 0;  // b
  DeviceSpan scale_codes;   // uint8 [b]
  DeviceSpan absmax2;       // fp32 [ceil(b / 256)]
  DeviceSpan offset;        // fp32 [1]
  DeviceSpan map;           // fp32 [256]: the checkpoint's own, or kScaleMap
  DeviceSpan scales;        // fp32 [b], written
};

// The shape checks that every device shares. fp32 spans are aligned to 4 bytes.
//
// Errors: INVALID_ARGUMENT.
absl::Status CheckArgs(const MeanScaleArgs& args);
absl::Status CheckArgs(const QuantizeScalesArgs& args);
absl::Status CheckArgs(const DequantizeScalesArgs& args);

}  // namespace nibble
