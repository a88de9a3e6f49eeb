// Tensors of 8-bit floats and the scales that they are multiplied by, as quant_method "fp8" stores
// them: W, [rows, columns], or [experts, rows, columns] if experts are fused, with one of
//
//   W_scale_inv   transformers, DeepSeek, Qwen; a factor in spite of its name
//   W_scale       vLLM
//
// of F32, F16 or BF16. Its shape says what a scale is of (behind the experts, if there are any):
//
//   [ceil(rows / r), ceil(columns / c)]   a block, weight_block_size being [r, c]
//   [], [1], [1, 1]                       the whole tensor
//   [rows], [rows, 1]                     a row
//
// An expert's rows must be whole blocks.
//
// Source: transformers integrations/finegrained_fp8.py; vLLM layers/quantization/fp8.py.

#pragma once

#include "absl/status/status.h"
#include "loader/checkpoint.h"

namespace nibble {

// Fills in `f8_scale` of every tensor of F8_E4M3 and F8_E5M2, and removes the tensors of scales
// from the checkpoint, those of activations ("input_scale") included: nothing here reads them.
//
// Requires: the headers of all shards are read.
// Errors: UNIMPLEMENTED for 8-bit floats of another kind (FNUZ), without scales that we know, or
//   fused with blocks that reach over two experts; DATA_LOSS for an empty one, a scale whose shape
//   does not fit, two of them, or one of a tensor that is not in 8 bits. All name file, tensor,
//   what was expected and found.
absl::Status MergeF8Scales(Checkpoint& checkpoint);

}  // namespace nibble
