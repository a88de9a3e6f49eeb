// What a tensor is, from its name: the tables of the model families we know, and one generic rule
// for those we do not.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "loader/model_config.h"

namespace nibble {

// What a tensor does in its model. The comment says what a family calls it.
enum class Role {
  kEmbedding,        // embed_tokens [V, H]
  kOutputHead,       // lm_head [V, H]
  kNorm,             // every norm's weight
  kBias,             // every bias
  kQuery,            // q_proj
  kKey,              // k_proj
  kValue,            // v_proj
  kAttentionOutput,  // o_proj
  kGate,             // gate_proj [I, H]
  kUp,               // up_proj [I, H]
  kDown,             // down_proj [H, I]
  kRouter,           // mlp.gate, block_sparse_moe.gate [E, H]
  kExpertGate,       // of one expert [I, H]
  kExpertUp,         // [I, H]
  kExpertDown,       // [H, I]
  kExpertsGateUp,    // fused, [E, 2 I, H]: gate rows first, then up
  kExpertsDown,      // fused, [E, H, I]
  kSharedExpertGate,
  kSharedExpertUp,
  kSharedExpertDown,
  kSharedExpertRouter,     // shared_expert_gate [1, H]
  kLinearQueryKeyValue,    // linear_attn.in_proj_qkv
  kLinearOutputGate,       // linear_attn.in_proj_z
  kLinearDecayGates,       // linear_attn.in_proj_a, in_proj_b
  kLinearDecay,            // A_log, dt_bias
  kConvolution,            // conv1d
  kLinearAttentionOutput,  // linear_attn.out_proj
  kRotaryBuffer,           // rotary_emb.inv_freq of old checkpoints: recomputed, never loaded
  kVision,                 // of a vision-language model: not loaded
  kMultiTokenPrediction,   // mtp.*: not loaded
  kLinear,                 // generic rule: a 2-D weight of a linear layer
  kOther,                  // generic rule: anything else
};

absl::string_view RoleName(Role role);  // "query", "experts_gate_up".

struct WeightName {
  Role role = Role::kOther;
  int layer_index = -1;   // -1: of no layer.
  int expert_index = -1;  // -1: of no single expert.
};

// A model family is data: its model types and the tails of its tensor names.
struct ModelFamily;

// The family of `model_type`; null if we do not know it, and the generic rule applies.
const ModelFamily* FindFamily(absl::string_view model_type);

// Requires: `family` is null or from FindFamily.
WeightName ClassifyWeight(const ModelFamily* family, absl::string_view tensor_name,
                          std::span<const int64_t> shape);

// The shape that the config gives to a tensor of this role; empty where it does not say.
std::vector<int64_t> ExpectedShape(const ModelConfig& config, const WeightName& weight);

}  // namespace nibble
