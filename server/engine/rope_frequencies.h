// How fast each pair of a head turns with its position: rotary embeddings and their scalings.
//
// Source: huggingface/transformers, modeling_rope_utils.py (linear, dynamic, llama3, yarn).

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nibble {

// "rope_scaling" or "rope_parameters" of config.json; what a type does not use is not looked at.
// 0 stands for what the file does not say.
struct RopeScaling {
  std::string type = "default";
  double factor = 0;
  double low_frequency_factor = 0;   // llama3
  double high_frequency_factor = 0;  // llama3
  int64_t original_context_tokens = 0;
  double attention_factor = 0;  // yarn, as the rest
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 0;
  double mscale_all_dim = 0;
  bool truncate = true;
};

struct RopeFrequencies {
  std::vector<float> frequencies;  // Radians a position; one for each pair.
  float magnitude = 1;             // Cos and sin are multiplied by it.

  friend bool operator==(const RopeFrequencies&, const RopeFrequencies&) = default;
};

// Of `rotary_size` / 2 pairs. `context_tokens` is the longest sequence that will be served: dynamic
// scaling, which in transformers follows the length of each sequence, is fixed for it.
//
// Requires: base > 0, rotary_size even and at least 2.
// Errors: UNIMPLEMENTED for another type; DATA_LOSS for one that lacks what it needs.
absl::StatusOr<RopeFrequencies> MakeRopeFrequencies(const RopeScaling& scaling, double base,
                                                    int64_t rotary_size,
                                                    int64_t model_context_tokens,
                                                    int64_t context_tokens);

}  // namespace nibble
