#include "loader/weight_names.h"

#include <array>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "loader/generic_names.h"
#include "loader/tensor_path.h"

namespace nibble {

// A tensor's name below the model's prefix, with its layer and expert as {layer} and {expert}.
struct NameRule {
  absl::string_view name;
  Role role;
};

struct ModelFamily {
  std::array<absl::string_view, 2> model_types;  // Alone, and nested in a vision-language model.
  std::span<const std::span<const NameRule>> rules;
  bool gated_query = false;  // q_proj makes a query and a gate of its size.
};

namespace {

// Every family has these.
constexpr NameRule kDecoder[] = {
    {"embed_tokens.weight", Role::kEmbedding},
    {"lm_head.weight", Role::kOutputHead},
    {"norm.weight", Role::kNorm},
    {"layers.{layer}.input_layernorm.weight", Role::kNorm},
    {"layers.{layer}.post_attention_layernorm.weight", Role::kNorm},
    {"layers.{layer}.self_attn.q_proj.weight", Role::kQuery},
    {"layers.{layer}.self_attn.k_proj.weight", Role::kKey},
    {"layers.{layer}.self_attn.v_proj.weight", Role::kValue},
    {"layers.{layer}.self_attn.o_proj.weight", Role::kAttentionOutput},
    {"layers.{layer}.mlp.gate_proj.weight", Role::kGate},
    {"layers.{layer}.mlp.up_proj.weight", Role::kUp},
    {"layers.{layer}.mlp.down_proj.weight", Role::kDown},
    {"layers.{layer}.self_attn.rotary_emb.inv_freq", Role::kRotaryBuffer},
    {"rotary_emb.inv_freq", Role::kRotaryBuffer},
};

constexpr NameRule kAttentionBiases[] = {
    {"layers.{layer}.self_attn.q_proj.bias", Role::kBias},
    {"layers.{layer}.self_attn.k_proj.bias", Role::kBias},
    {"layers.{layer}.self_attn.v_proj.bias", Role::kBias},
    {"layers.{layer}.self_attn.o_proj.bias", Role::kBias},
};

constexpr NameRule kMlpBiases[] = {
    {"layers.{layer}.mlp.gate_proj.bias", Role::kBias},
    {"layers.{layer}.mlp.up_proj.bias", Role::kBias},
    {"layers.{layer}.mlp.down_proj.bias", Role::kBias},
};

constexpr NameRule kQueryKeyNorms[] = {
    {"layers.{layer}.self_attn.q_norm.weight", Role::kNorm},
    {"layers.{layer}.self_attn.k_norm.weight", Role::kNorm},
};

constexpr NameRule kFeedForwardNorms[] = {
    {"layers.{layer}.pre_feedforward_layernorm.weight", Role::kNorm},
    {"layers.{layer}.post_feedforward_layernorm.weight", Role::kNorm},
};

// One tensor for each expert, as most checkpoints have it, or one for all, as transformers 5 holds
// them in memory and Qwen3.5 stores them.
constexpr NameRule kExperts[] = {
    {"layers.{layer}.mlp.gate.weight", Role::kRouter},
    {"layers.{layer}.mlp.experts.{expert}.gate_proj.weight", Role::kExpertGate},
    {"layers.{layer}.mlp.experts.{expert}.up_proj.weight", Role::kExpertUp},
    {"layers.{layer}.mlp.experts.{expert}.down_proj.weight", Role::kExpertDown},
    {"layers.{layer}.mlp.experts.gate_up_proj", Role::kExpertsGateUp},
    {"layers.{layer}.mlp.experts.gate_up_proj.weight", Role::kExpertsGateUp},
    {"layers.{layer}.mlp.experts.down_proj", Role::kExpertsDown},
    {"layers.{layer}.mlp.experts.down_proj.weight", Role::kExpertsDown},
};

constexpr NameRule kMixtralExperts[] = {
    {"layers.{layer}.block_sparse_moe.gate.weight", Role::kRouter},
    {"layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight", Role::kExpertGate},
    {"layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight", Role::kExpertUp},
    {"layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight", Role::kExpertDown},
};

constexpr NameRule kSharedExpert[] = {
    {"layers.{layer}.mlp.shared_expert.gate_proj.weight", Role::kSharedExpertGate},
    {"layers.{layer}.mlp.shared_expert.up_proj.weight", Role::kSharedExpertUp},
    {"layers.{layer}.mlp.shared_expert.down_proj.weight", Role::kSharedExpertDown},
    {"layers.{layer}.mlp.shared_expert_gate.weight", Role::kSharedExpertRouter},
};

constexpr NameRule kLinearAttention[] = {
    {"layers.{layer}.linear_attn.in_proj_qkv.weight", Role::kLinearQueryKeyValue},
    {"layers.{layer}.linear_attn.in_proj_z.weight", Role::kLinearOutputGate},
    {"layers.{layer}.linear_attn.in_proj_a.weight", Role::kLinearDecayGates},
    {"layers.{layer}.linear_attn.in_proj_b.weight", Role::kLinearDecayGates},
    {"layers.{layer}.linear_attn.A_log", Role::kLinearDecay},
    {"layers.{layer}.linear_attn.dt_bias", Role::kLinearDecay},
    {"layers.{layer}.linear_attn.conv1d.weight", Role::kConvolution},
    {"layers.{layer}.linear_attn.norm.weight", Role::kNorm},
    {"layers.{layer}.linear_attn.out_proj.weight", Role::kLinearAttentionOutput},
};

using Rules = std::span<const NameRule>;
constexpr Rules kLlamaRules[] = {kDecoder, kAttentionBiases, kMlpBiases};
constexpr Rules kMistralRules[] = {kDecoder};
constexpr Rules kQwen2Rules[] = {kDecoder, kAttentionBiases};
constexpr Rules kQwen3Rules[] = {kDecoder, kQueryKeyNorms, kAttentionBiases};
constexpr Rules kQwen3MoeRules[] = {kExperts, kDecoder, kQueryKeyNorms, kAttentionBiases};
constexpr Rules kMixtralRules[] = {kMixtralExperts, kExperts, kDecoder};
constexpr Rules kQwen35Rules[] = {kDecoder, kQueryKeyNorms, kLinearAttention, kAttentionBiases};
constexpr Rules kQwen35MoeRules[] = {kExperts,       kSharedExpert,    kDecoder,
                                     kQueryKeyNorms, kLinearAttention, kAttentionBiases};
constexpr Rules kGemma2Rules[] = {kDecoder, kFeedForwardNorms, kAttentionBiases};
constexpr Rules kGemma3Rules[] = {kDecoder, kFeedForwardNorms, kQueryKeyNorms, kAttentionBiases};
constexpr Rules kCohereRules[] = {kDecoder, kQueryKeyNorms, kAttentionBiases};

// Source: huggingface/transformers, models/*/modeling_*.py.
constexpr ModelFamily kFamilies[] = {
    {{"llama"}, kLlamaRules},
    {{"mistral"}, kMistralRules},
    {{"qwen2"}, kQwen2Rules},
    {{"qwen3"}, kQwen3Rules},
    {{"qwen3_moe"}, kQwen3MoeRules},
    {{"mixtral"}, kMixtralRules},
    {{"qwen3_5", "qwen3_5_text"}, kQwen35Rules, true},
    {{"qwen3_5_moe", "qwen3_5_moe_text"}, kQwen35MoeRules, true},
    {{"seed_oss"}, kLlamaRules},
    {{"gemma2"}, kGemma2Rules},
    {{"gemma3", "gemma3_text"}, kGemma3Rules},
    {{"cohere"}, kCohereRules},
};

// Where a text model's names begin: alone, in a vision-language model as transformers 5 saves it,
// as transformers 4 did, and saved without its head.
constexpr absl::string_view kPrefixes[] = {"model.language_model.", "language_model.model.",
                                           "language_model.", "model.", ""};

std::optional<Role> FindRule(const ModelFamily& family, absl::string_view name) {
  for (const Rules rules : family.rules) {
    for (const NameRule& rule : rules) {
      if (rule.name == name) {
        return rule.role;
      }
    }
  }
  return std::nullopt;
}

// Sizes that several shapes are made of.
struct Sizes {
  explicit Sizes(const ModelConfig& config)
      : key_value(config.key_value_head_count * config.head_size),
        query(config.head_count * config.head_size),
        linear_value(config.linear_value_head_count * config.linear_value_head_size),
        linear_all(2 * config.linear_key_head_count * config.linear_key_head_size + linear_value) {}

  int64_t key_value;
  int64_t query;
  int64_t linear_value;
  int64_t linear_all;  // Query, key and value of a DeltaNet.
};

// The shape of what a DeltaNet is made of.
std::vector<int64_t> LinearAttentionShapeOf(const ModelConfig& config, const Sizes& sizes,
                                            Role role) {
  switch (role) {
    case Role::kLinearQueryKeyValue:
      return {sizes.linear_all, config.hidden_size};
    case Role::kLinearOutputGate:
      return {sizes.linear_value, config.hidden_size};
    case Role::kLinearDecayGates:
      return {config.linear_value_head_count, config.hidden_size};
    case Role::kLinearDecay:
      return {config.linear_value_head_count};
    case Role::kConvolution:
      return {sizes.linear_all, 1, config.linear_conv_kernel_size};
    case Role::kLinearAttentionOutput:
      return {config.hidden_size, sizes.linear_value};
    default:
      return {};
  }
}

// The shape with zeros where the config says nothing.
std::vector<int64_t> ShapeOf(const ModelConfig& config, bool gated_query, Role role) {
  const Sizes sizes(config);
  const int64_t hidden = config.hidden_size;
  const int64_t experts = config.expert_count;
  switch (role) {
    case Role::kEmbedding:
    case Role::kOutputHead:
      return {config.vocabulary_size, hidden};
    case Role::kQuery:
      return {sizes.query * (gated_query ? 2 : 1), hidden};
    case Role::kKey:
    case Role::kValue:
      return {sizes.key_value, hidden};
    case Role::kAttentionOutput:
      return {hidden, sizes.query};
    case Role::kGate:
    case Role::kUp:
      return {config.intermediate_size, hidden};
    case Role::kDown:
      return {hidden, config.intermediate_size};
    case Role::kRouter:
      return {experts, hidden};
    case Role::kExpertGate:
    case Role::kExpertUp:
      return {config.expert_intermediate_size, hidden};
    case Role::kExpertDown:
      return {hidden, config.expert_intermediate_size};
    case Role::kExpertsGateUp:
      return {experts, 2 * config.expert_intermediate_size, hidden};
    case Role::kExpertsDown:
      return {experts, hidden, config.expert_intermediate_size};
    case Role::kSharedExpertGate:
    case Role::kSharedExpertUp:
      return {config.shared_expert_intermediate_size, hidden};
    case Role::kSharedExpertDown:
      return {hidden, config.shared_expert_intermediate_size};
    case Role::kSharedExpertRouter:
      return {1, hidden};
    case Role::kLinearQueryKeyValue:
    case Role::kLinearOutputGate:
    case Role::kLinearDecayGates:
    case Role::kLinearDecay:
    case Role::kConvolution:
    case Role::kLinearAttentionOutput:
      return LinearAttentionShapeOf(config, sizes, role);
    // Their size is that of what they belong to, which the role does not say.
    case Role::kNorm:
    case Role::kBias:
    // The config says nothing of these.
    case Role::kRotaryBuffer:
    case Role::kVision:
    case Role::kMultiTokenPrediction:
    case Role::kLinear:
    case Role::kOther:
      break;
  }
  return {};
}

}  // namespace

absl::string_view RoleName(Role role) {
  constexpr std::array<absl::string_view, 32> kNames = {"embedding",
                                                        "output_head",
                                                        "norm",
                                                        "bias",
                                                        "query",
                                                        "key",
                                                        "value",
                                                        "attention_output",
                                                        "gate",
                                                        "up",
                                                        "down",
                                                        "router",
                                                        "expert_gate",
                                                        "expert_up",
                                                        "expert_down",
                                                        "experts_gate_up",
                                                        "experts_down",
                                                        "shared_expert_gate",
                                                        "shared_expert_up",
                                                        "shared_expert_down",
                                                        "shared_expert_router",
                                                        "linear_query_key_value",
                                                        "linear_output_gate",
                                                        "linear_decay_gates",
                                                        "linear_decay",
                                                        "convolution",
                                                        "linear_attention_output",
                                                        "rotary_buffer",
                                                        "vision",
                                                        "multi_token_prediction",
                                                        "linear",
                                                        "other"};
  static_assert(kNames[static_cast<size_t>(Role::kOther)] == "other", "a name for each role");
  return kNames[static_cast<size_t>(role)];
}

const ModelFamily* FindFamily(absl::string_view model_type) {
  for (const ModelFamily& family : kFamilies) {
    for (const absl::string_view known : family.model_types) {
      if (known == model_type && !known.empty()) {
        return &family;
      }
    }
  }
  return nullptr;
}

WeightName ClassifyWeight(const ModelFamily* family, absl::string_view tensor_name,
                          std::span<const int64_t> shape) {
  if (const std::optional<Role> role = RoleOutsideTextModel(tensor_name); role.has_value()) {
    return {.role = *role};
  }
  const TensorPath path = ParseTensorPath(tensor_name);
  WeightName weight = {.layer_index = path.layer_index, .expert_index = path.expert_index};
  if (family == nullptr) {
    weight.role = GenericRole(path.name, shape);
    return weight;
  }
  for (const absl::string_view prefix : kPrefixes) {
    absl::string_view name = path.name;
    if (absl::ConsumePrefix(&name, prefix)) {
      if (const std::optional<Role> role = FindRule(*family, name); role.has_value()) {
        weight.role = *role;
        return weight;
      }
    }
  }
  return weight;
}

std::vector<int64_t> ExpectedShape(const ModelConfig& config, const WeightName& weight) {
  const ModelFamily* const family = FindFamily(config.model_type);
  if (family == nullptr) {
    return {};
  }
  std::vector<int64_t> shape = ShapeOf(config, family->gated_query, weight.role);
  for (const int64_t dimension : shape) {
    if (dimension == 0) {
      return {};
    }
  }
  return shape;
}

}  // namespace nibble
