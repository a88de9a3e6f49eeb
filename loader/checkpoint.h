// A Hugging Face checkpoint, known from its headers alone: config, shards, tensors.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loader/checkpoint_directory.h"
#include "loader/model_config.h"
#include "loader/safetensors.h"

namespace nibble {

struct Shard {
  std::string file_name;
  FileIdentity identity;  // When its header was read.
};

struct CheckpointTensor {
  std::string name;  // Valid UTF-8 without control characters.
  int shard_index = 0;
  Dtype dtype = Dtype::kBf16;
  std::vector<int64_t> shape;  // Row-major.
  int64_t file_offset = 0;     // Of its first byte, from the start of the shard.
  int64_t bytes = 0;
};

struct Checkpoint {
  std::shared_ptr<const CheckpointDirectory> directory;
  ModelConfig config;
  std::vector<Shard> shards;
  std::vector<CheckpointTensor>
      tensors;  // In the order of shards, then of their place in the file.
  std::vector<std::string> warnings;
};

// Reads config.json, the index if there is one, and the header of every shard; no tensor data.
//
// Errors: NOT_FOUND without config.json or safetensors files; DATA_LOSS for anything malformed,
//   truncated or inconsistent, naming file, tensor, what was expected and found; INVALID_ARGUMENT
//   for names that lead out of the directory or hold control characters; UNIMPLEMENTED for a
//   quantization method or format we do not read.
absl::StatusOr<Checkpoint> OpenCheckpoint(std::shared_ptr<const CheckpointDirectory> directory);

}  // namespace nibble
