// Synthetic checkpoints: the shapes of well-known models with seeded values, in the Hugging Face
// layout, for budgets, plans, tests and benchmarks where no real checkpoint is at hand.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nibble {

struct SyntheticShapeInfo {
  std::string name;  // "llama-8b".
  std::string description;
  int64_t parameter_count = 0;
  int64_t data_bytes = 0;  // Of all tensors.
};

// Every shape there is, the smallest first within a family.
std::vector<SyntheticShapeInfo> ListSyntheticShapes();

struct SyntheticOptions {
  uint64_t seed = 0;
  bool sparse = false;  // Leaves tensor data as holes, which read as zeros and take no disk space.
};

// Told how much of the data is written; returns false to stop.
using SyntheticProgress = absl::FunctionRef<bool(int64_t written_bytes, int64_t data_bytes)>;

// Writes config.json, tokenizer.json, tokenizer_config.json and safetensors files of at most 5 GB,
// with their index if they are several, into `directory`, which is made if it does not exist.
// Equal arguments give equal files. On failure nothing is left behind.
//
// Errors: NOT_FOUND for an unknown shape, naming those there are; ALREADY_EXISTS if the directory
//   is not empty; RESOURCE_EXHAUSTED if the disk is full (or would be), naming the file;
//   CANCELLED; what errno says.
absl::Status WriteSyntheticCheckpoint(absl::string_view shape_name, const std::string& directory,
                                      const SyntheticOptions& options, SyntheticProgress progress);

}  // namespace nibble
