// The shapes of synthetic checkpoints, as data: config.json and the list of tensors of each.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "loader/safetensors.h"

namespace nibble {

struct SyntheticTensor {
  std::string name;
  std::vector<int64_t> shape;
  Dtype dtype = Dtype::kBf16;
  float mean = 0;  // Of its values: 1 for norms that multiply.
};

struct SyntheticModel {
  std::string name;
  std::string description;
  std::string config_json;
  int64_t vocabulary_size = 0;
  std::vector<SyntheticTensor> tensors;
};

// The end-of-text token of every synthetic tokenizer, right after the 256 bytes.
inline constexpr int64_t kSyntheticEndTokenId = 256;

std::vector<std::string> SyntheticShapeNames();

// Requires: `name` is one of SyntheticShapeNames().
SyntheticModel MakeSyntheticModel(absl::string_view name);

int64_t ElementCount(const SyntheticTensor& tensor);

}  // namespace nibble
