#include "loader/generic_names.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace nibble {
namespace {

template <size_t N>
bool IsOneOf(absl::string_view word, const std::array<absl::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool IsNorm(absl::string_view module) {
  // "ln" and what may follow it: ln_f, ln_1, ln1, ln2.
  absl::string_view rest = module;
  const bool short_name = absl::ConsumePrefix(&rest, "ln") &&
                          (rest.empty() || rest[0] == '_' || (rest[0] >= '0' && rest[0] <= '9'));
  // "norm1" and "norm_2" too.
  while (!module.empty() &&
         (module.back() == '_' || (module.back() >= '0' && module.back() <= '9'))) {
    module.remove_suffix(1);
  }
  return short_name || absl::EndsWith(module, "norm");
}

bool IsConvolution(absl::string_view module) {
  return absl::StartsWith(module, "conv") || absl::EndsWith(module, "conv") ||
         absl::EndsWith(module, "conv1d");
}

bool IsEmbedding(absl::string_view module) {
  constexpr std::array<absl::string_view, 9> kNames = {"wte",
                                                       "wpe",
                                                       "embed_in",
                                                       "embed_tokens",
                                                       "embed_positions",
                                                       "embedding",
                                                       "embeddings",
                                                       "relative_attention_bias",
                                                       "embed"};
  return IsOneOf(module, kNames) || absl::EndsWith(module, "_embedding") ||
         absl::EndsWith(module, "_embeddings");
}

bool IsOutputHead(absl::string_view module, bool in_layer) {
  constexpr std::array<absl::string_view, 3> kNames = {"output", "output_layer", "embed_out"};
  return module == "lm_head" || (!in_layer && IsOneOf(module, kNames));
}

bool IsRouter(absl::string_view module, absl::string_view parent) {
  constexpr std::array<absl::string_view, 4> kNames = {"gate", "router", "shared_expert_gate",
                                                       "gating"};
  return IsOneOf(module, kNames) || parent == "router";
}

}  // namespace

std::optional<Role> RoleOutsideTextModel(absl::string_view tensor_name) {
  constexpr std::array<absl::string_view, 7> kVisionParts = {
      "visual",       "vision_tower",  "vision_model", "multi_modal_projector",
      "vision_embed", "image_newline", "audio_tower"};
  tensor_name = absl::StripPrefix(tensor_name, "model.");
  const absl::string_view first = tensor_name.substr(0, tensor_name.find('.'));
  if (IsOneOf(first, kVisionParts)) {
    return Role::kVision;
  }
  return first == "mtp" ? std::optional(Role::kMultiTokenPrediction) : std::nullopt;
}

Role GenericRole(absl::string_view name, std::span<const int64_t> shape) {
  std::vector<absl::string_view> words = absl::StrSplit(name, '.');
  const bool is_weight = words.back() == "weight";
  if (is_weight) {
    words.pop_back();
  }
  const auto word = [&words](size_t from_end) -> absl::string_view {
    return from_end < words.size() ? words[words.size() - 1 - from_end] : "";
  };
  const absl::string_view module = word(0);
  const absl::string_view parent = word(1);
  if (module == "inv_freq") {
    return Role::kRotaryBuffer;
  }
  if (absl::EndsWith(module, "bias") && !is_weight) {
    return Role::kBias;
  }
  if (parent == "experts" && shape.size() == 3) {
    return module == "gate_up_proj" ? Role::kExpertsGateUp
           : module == "down_proj"  ? Role::kExpertsDown
                                    : Role::kOther;
  }
  if (!is_weight) {
    return Role::kOther;
  }
  if (IsNorm(module)) {
    return Role::kNorm;
  }
  if (IsConvolution(module)) {
    return Role::kConvolution;
  }
  if (IsEmbedding(module)) {
    return Role::kEmbedding;
  }
  if (IsOutputHead(module, absl::StrContains(name, "{layer}"))) {
    return Role::kOutputHead;
  }
  if (IsRouter(module, parent)) {
    return Role::kRouter;
  }
  return shape.size() == 2 ? Role::kLinear : Role::kOther;
}

}  // namespace nibble
