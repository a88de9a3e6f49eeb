// What a model computes, as data: the options of its family and the sizes of its config. The
// forward pass knows no families, only what stands here.
//
// Source: huggingface/transformers, models/*/modeling_*.py and configuration_*.py.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/step_ops.h"
#include "loader/model_config.h"
#include "server/engine/rope_frequencies.h"

namespace nibble {

struct LayerRecipe {
  bool linear_attention = false;  // Gated DeltaNet; the rest of the first line is not used then.
  int64_t window = 0;             // Tokens that attention sees; 0: all.
  int rope_index = 0;             // Of ModelRecipe::ropes.
  bool experts = false;           // Instead of one MLP.
};

struct ModelRecipe {
  std::string model_type;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t vocabulary_size = 0;
  int64_t context_tokens = 0;  // That the model was made for; 0: unknown.
  std::vector<LayerRecipe> layers;

  // Attention.
  int64_t head_count = 0;
  int64_t key_value_head_count = 0;
  int64_t head_size = 0;
  float attention_scale = 0;
  float attention_softcap = 0;
  bool query_key_norm = false;   // Of each head, before rope.
  bool gated_attention = false;  // q_proj gives each head a query and a gate.
  bool interleaved_rope = false;
  std::vector<RopeFrequencies> ropes;

  // Around the mixers.
  NormKind norm = NormKind::kRms;
  float epsilon = 0;
  bool parallel_block = false;  // x + attention(norm(x)) + mlp(norm(x)).
  bool sandwich_norms = false;  // A norm behind each mixer too.
  Activation activation = Activation::kSilu;
  bool scaled_embedding = false;  // By the root of hidden_size, in the table's own type.
  bool tied_embeddings = false;
  float logit_scale = 1;
  float logit_softcap = 0;

  // Experts.
  int64_t expert_count = 0;
  int64_t expert_intermediate_size = 0;
  int64_t expert_top_k = 0;
  bool renormalize_experts = false;
  int64_t shared_expert_size = 0;  // 0: there is none.

  // Gated DeltaNet.
  int64_t linear_key_heads = 0;
  int64_t linear_value_heads = 0;
  int64_t linear_key_size = 0;
  int64_t linear_value_size = 0;
  int64_t linear_taps = 0;

  int64_t attention_layer_count() const;
  int64_t linear_layer_count() const;
  int64_t linear_channels() const {
    return 2 * linear_key_heads * linear_key_size + linear_value_heads * linear_value_size;
  }
};

// `context_tokens` is the longest sequence that will be served; 0: the model's.
//
// Errors: UNIMPLEMENTED for a family or an option that we cannot compute, named; DATA_LOSS for a
//   config that lacks or contradicts what its family needs, naming the key.
absl::StatusOr<ModelRecipe> MakeModelRecipe(const ModelConfig& config,
                                            absl::string_view config_json, int64_t context_tokens);

}  // namespace nibble
