// The JSON with which bitsandbytes describes a tensor that it has stored in 4 bits:
//
//   {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [128, 320],
//    "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.18877258896827698}
//
// The last three are of double-quantized tensors alone. As in bitsandbytes, any other key is an
// error.
//
// Source: bitsandbytes functional.py, QuantState.as_dict and from_dict.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/block_format.h"
#include "loader/safetensors.h"

namespace nibble {

// Some hundred bytes are real; a fused tensor has no more.
inline constexpr int64_t kQuantStateBytesMax = int64_t{64} << 10;

// Scales that share a maximum when they are quantized themselves; bitsandbytes has no other.
inline constexpr int64_t kNestedBlockSize = 256;

struct QuantState {
  Codebook codebook = Codebook::kNf4;
  int64_t block_size = kBlockSizeDefault;
  Dtype dtype = Dtype::kBf16;  // F32, F16 or BF16: of what was quantized.
  std::vector<int64_t> shape;  // 1 to 8 dimensions, each at least 1.
  int64_t element_count = 0;   // Their product, at most 2^60.
  bool double_quantized = false;
  float scale_mean = 0;  // "nested_offset"; finite.
};

// "nf4", "fp4": what quant_type calls a codebook.
absl::string_view QuantTypeName(Codebook codebook);

// Errors: without the file's name; DATA_LOSS for malformed JSON, a key that stands twice, is not
//   known or is missing, a value of the wrong type or beyond its bounds, an impossible block size;
//   UNIMPLEMENTED for a quant_type, a shape of null or nested statistics that we do not read.
absl::StatusOr<QuantState> ParseQuantState(absl::string_view json);

}  // namespace nibble
