// A tensor's name taken apart: which layer, which expert, and the rest.

#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

struct TensorPath {
  std::string name;  // With "{layer}" and "{expert}" in place of the numbers.
  int layer_index = -1;
  int expert_index = -1;
};

// "model.layers.3.mlp.experts.7.up_proj.weight" is layer 3, expert 7 of
// "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight". Layers are counted after "layers",
// "layer", "h", "block" or "blocks", the first that is followed by a number; experts after
// "experts". Numbers are decimal without leading zeros, below a million.
TensorPath ParseTensorPath(absl::string_view tensor_name);

}  // namespace nibble
