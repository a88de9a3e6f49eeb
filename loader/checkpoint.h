// A Hugging Face checkpoint, known from its headers alone: config, shards, tensors.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/block_format.h"
#include "loader/checkpoint_directory.h"
#include "loader/model_config.h"
#include "loader/safetensors.h"

namespace nibble {

struct Shard {
  std::string file_name;
  FileIdentity identity;           // When its header was read.
  std::string header_digest = {};  // Of its header's JSON.
};

// Bytes within a shard.
struct FileRange {
  int shard_index = 0;
  int64_t offset = 0;  // From the start of the shard.
  int64_t bytes = 0;
};

// How bitsandbytes has stored a tensor in 4 bits: the planes of block_format.h. Its codes are the
// tensor's own bytes in the file, whatever quant_storage calls them.
struct StoredQuantization {
  Codebook codebook = Codebook::kNf4;
  int64_t block_size = kBlockSizeDefault;
  FileRange scales;  // "absmax": fp32 for each block, or a byte if double-quantized.

  bool double_quantized = false;  // The rest is of such tensors alone.
  FileRange scale_maxima;         // "nested_absmax": fp32 for each 256 scales.
  float scale_mean = 0;           // "nested_offset".
  int scale_map_index = 0;        // "nested_quant_map": among Checkpoint::scale_maps.
};

// How a tensor of 8-bit floats is stored: each element is multiplied by the scale of its block of
// `block_rows` x `block_columns`. A row-wise scale has blocks of 1 x columns, one scale for the
// whole tensor a block as large as it. A tensor of three dimensions counts as one matrix of all its
// experts' rows; no block reaches from one expert into the next.
struct StoredF8Scale {
  FileRange scales;  // scale_type [ceil(rows / block_rows), ceil(columns / block_columns)]
  FloatType scale_type = FloatType::kF32;
  int64_t block_rows = 0;  // Both at least 1.
  int64_t block_columns = 0;
};

struct CheckpointTensor {
  std::string name;  // Valid UTF-8 without control characters.
  int shard_index = 0;
  Dtype dtype = Dtype::kBf16;  // Of the elements; if in 4 bits, of what they were made from.
  std::vector<int64_t> shape;  // Row-major, of the elements.
  int64_t file_offset = 0;     // Of its first byte, from the start of the shard.
  int64_t bytes = 0;           // In the file: of the elements or the codes, without padding.
  std::optional<StoredQuantization> quantization =
      std::nullopt;                                      // Of a tensor that is in 4 bits already.
  std::optional<StoredF8Scale> f8_scale = std::nullopt;  // Of a tensor of F8_E4M3 or F8_E5M2.
};

// What the 256 codes of a double-quantized scale stand for.
using ScaleMap = std::array<float, 256>;

struct Checkpoint {
  std::shared_ptr<const CheckpointDirectory> directory;
  ModelConfig config;
  std::string config_json;  // The file itself: what an export writes does not depend on it later.
  std::vector<Shard> shards;
  std::vector<CheckpointTensor>
      tensors;  // In the order of shards, then of their place in the file. Side tensors of
                // quantization (absmax and its like, F8 scales) are within those they belong to.
  std::vector<ScaleMap> scale_maps;  // The different ones of the double-quantized tensors.
  std::vector<std::string> warnings;
};

// "model.safetensors: tensor "a.weight": ", the beginning of messages about a tensor.
std::string PlaceText(const Checkpoint& checkpoint, const CheckpointTensor& tensor);

// Removes the tensors for which `removed` is true and keeps the order of the others.
//
// Requires: `removed` has an element for each tensor.
void RemoveTensors(const std::vector<bool>& removed, Checkpoint& checkpoint);

// Reads config.json, the index if there is one, the header of every shard, and of tensors that are
// quantized already what says how (quantized_tensors.h, f8_scales.h); no codes, scales or elements.
//
// Errors: NOT_FOUND without config.json or safetensors files; DATA_LOSS for anything malformed,
//   truncated or inconsistent, naming file, tensor, what was expected and found; INVALID_ARGUMENT
//   for names that lead out of the directory or hold control characters; UNIMPLEMENTED for a
//   quantization method or format we do not read; RESOURCE_EXHAUSTED for headers or descriptions of
//   quantized tensors beyond our limits.
absl::StatusOr<Checkpoint> OpenCheckpoint(std::shared_ptr<const CheckpointDirectory> directory);

}  // namespace nibble
