// The numeric operations of a device, with their shapes and types: those on a tensor's elements
// here, those on its scales in scale_ops.h. The list stays on one screen; with device.h it is our
// whole hardware contract. kernels/README.md says which file implements what.

#pragma once

#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "kernels/block_format.h"
#include "kernels/device.h"
#include "kernels/error_sums.h"
#include "kernels/f8_format.h"
#include "kernels/scale_ops.h"

namespace nibble {

// What a first_non_finite cell holds when every element is finite.
inline constexpr uint64_t kAllFinite = std::numeric_limits<uint64_t>::max();

// Quantizes n elements to the planes of block_format.h. A range that starts on a block boundary of
// its tensor gives the bytes that quantizing the whole tensor would give there.
struct QuantizeArgs {
  Codebook codebook = Codebook::kNf4;
  int64_t block_size = kBlockSizeDefault;
  FloatType source_type = FloatType::kBf16;
  int64_t element_count = 0;    // n
  DeviceSpan source;            // source_type [n], any alignment that is a multiple of its type
  DeviceSpan codes;             // uint8 [(n + 1) / 2]
  DeviceSpan scales;            // fp32 [ceil(n / block_size)], 4-byte aligned
  DeviceSpan first_non_finite;  // uint64 [1], 8-byte aligned; set to the index in `source` of the
                                // first NaN or Inf, or kAllFinite. Empty: not wanted.
  ScaleSearch scale_search = ScaleSearch::kNone;
};

struct DequantizeArgs {
  Codebook codebook = Codebook::kNf4;
  int64_t block_size = kBlockSizeDefault;
  FloatType target_type = FloatType::kBf16;
  int64_t element_count = 0;  // n
  DeviceSpan codes;           // uint8 [(n + 1) / 2]
  DeviceSpan scales;          // fp32 [ceil(n / block_size)]
  DeviceSpan target;          // target_type [n]; rounded to nearest even from an fp32 product
};

struct FindNonFiniteArgs {
  FloatType source_type = FloatType::kBf16;
  int64_t element_count = 0;    // n
  DeviceSpan source;            // source_type [n]
  DeviceSpan first_non_finite;  // uint64 [1], as in QuantizeArgs
};

// Expands 8-bit floats with their scales, for quantizing. NaN stays NaN.
struct ExpandF8Args {
  F8Range range;
  DeviceSpan source;  // uint8 [n]
  DeviceSpan scales;  // scale_type [scale_row_count(), scale_columns()] of `range`
  DeviceSpan target;  // fp32 [n]
};

// Sums what quantizing lost, chunk by chunk, the same bits on every device (error_sums.h). A range
// that starts on a chunk's boundary gives the sums that measuring the whole tensor would give
// there.
struct MeasureErrorArgs {
  Codebook codebook = Codebook::kNf4;
  int64_t block_size = kBlockSizeDefault;
  FloatType source_type = FloatType::kBf16;
  int64_t element_count = 0;  // n
  DeviceSpan source;          // source_type [n]
  DeviceSpan codes;           // uint8 [(n + 1) / 2]
  DeviceSpan scales;          // fp32 [ceil(n / block_size)]
  DeviceSpan sums;            // ErrorSums [ErrorChunkCount(n)], 8-byte aligned, overwritten
};

// Work goes to `queue`, which must be of the same device. Thread-safe (a queue is not).
//
// Errors: INVALID_ARGUMENT if a span's size is not the shape's or the block size is none (a
//   caller's mistake, but one that would corrupt memory); INTERNAL if the work cannot be queued.
class Ops {
 public:
  virtual ~Ops() = default;

  virtual absl::Status Quantize(Queue& queue, const QuantizeArgs& args) = 0;
  virtual absl::Status Dequantize(Queue& queue, const DequantizeArgs& args) = 0;
  virtual absl::Status FindNonFinite(Queue& queue, const FindNonFiniteArgs& args) = 0;
  virtual absl::Status ExpandF8(Queue& queue, const ExpandF8Args& args) = 0;
  virtual absl::Status MeasureError(Queue& queue, const MeasureErrorArgs& args) = 0;

  // Double quantization.
  virtual absl::Status MeanScale(Queue& queue, const MeanScaleArgs& args) = 0;
  virtual absl::Status QuantizeScales(Queue& queue, const QuantizeScalesArgs& args) = 0;
  virtual absl::Status DequantizeScales(Queue& queue, const DequantizeScalesArgs& args) = 0;
};

// The shape checks that every device shares.
absl::Status CheckArgs(const QuantizeArgs& args);
absl::Status CheckArgs(const DequantizeArgs& args);
absl::Status CheckArgs(const FindNonFiniteArgs& args);
absl::Status CheckArgs(const ExpandF8Args& args);
absl::Status CheckArgs(const MeasureErrorArgs& args);

}  // namespace nibble
