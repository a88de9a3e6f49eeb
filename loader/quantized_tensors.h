// Tensors that bitsandbytes has stored in 4 bits: from the pieces they are in the files
// (tensor_groups.h) to one tensor each.

#pragma once

#include "absl/status/status.h"
#include "loader/checkpoint.h"

namespace nibble {

// Bounds what a hostile checkpoint takes in memory, 1 MiB of maps. bitsandbytes writes the same map
// with every tensor; its versions differ in a few last bits.
inline constexpr int kScaleMapsMax = 1024;

// Merges the side tensors of each quantized tensor into it and fills in `scale_maps`; other tensors
// stay as they are. Of the data it reads quant_state, quant_map and nested_quant_map, some 1.3 KiB
// for each quantized tensor. If config.json names no quantization method, it is bitsandbytes from
// now on.
//
// Requires: the headers of all shards are read.
// Errors: those of FindTensorGroups and ReadPieces; DATA_LOSS if JSON, maps and sizes are malformed
//   or contradict each other; UNIMPLEMENTED for statistics or a codebook that we do not read. All
//   name file, tensor, what was expected and found.
// Cost: one or two small reads for each quantized tensor, in the order of the files. Measured: a
//   checkpoint of 18 432 of them opens in 0.3 to 0.5 s from the page cache (2 busy cores,
//   2026-11-24), with 18 500 reads if they are double-quantized, 36 900 if not.
absl::Status MergeQuantizedTensors(Checkpoint& checkpoint);

}  // namespace nibble
