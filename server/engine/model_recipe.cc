#include "server/engine/model_recipe.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/recipe_reader.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// Which layers see only a window of tokens, where "layer_types" does not say.
enum class Windows {
  kNone,
  kAll,         // Every layer, if the config has a window.
  kEvenLayers,  // Gemma-2.
  kPattern,     // Gemma-3: every sixth layer sees everything.
  kUpperLayers  // Qwen: layers from max_window_layers on, if use_sliding_window.
};

enum class Experts {
  kNone,
  kEveryLayer,  // Mixtral, Qwen3.5-MoE.
  kSparse,      // Qwen3-MoE: decoder_sparse_step and mlp_only_layers.
};

// A family, and what its config class takes where the file does not say.
struct Family {
  absl::string_view model_type;
  NormKind norm = NormKind::kRms;
  absl::string_view epsilon_key = "rms_norm_eps";
  double epsilon = 1e-6;
  double rope_base = 10'000;
  double partial_rotary = 1;
  Windows windows = Windows::kNone;
  int64_t window = 0;
  Experts experts = Experts::kNone;
  int64_t expert_top_k = 0;
  bool renormalize_always = false;
  bool query_key_norm = false;
  bool query_key_norm_by_config = false;  // "use_qk_norm".
  bool gelu = false;
  double attention_softcap = 0;
  double logit_softcap = 0;
  bool gemma = false;   // Scaled embedding, two more norms, an attention scale of its own.
  bool cohere = false;  // Parallel block, interleaved rope, scaled logits.
  bool hybrid = false;  // Gated DeltaNet and gated attention.
};

constexpr Family kFamilies[] = {
    {.model_type = "llama"},
    {.model_type = "mistral", .windows = Windows::kAll, .window = 4096},
    {.model_type = "mixtral",
     .epsilon = 1e-5,
     .rope_base = 1e6,
     .windows = Windows::kAll,
     .experts = Experts::kEveryLayer,
     .expert_top_k = 2,
     .renormalize_always = true},
    {.model_type = "qwen2", .windows = Windows::kUpperLayers, .window = 4096},
    {.model_type = "qwen3",
     .windows = Windows::kUpperLayers,
     .window = 4096,
     .query_key_norm = true},
    {.model_type = "qwen3_moe",
     .windows = Windows::kUpperLayers,
     .window = 4096,
     .experts = Experts::kSparse,
     .expert_top_k = 8,
     .query_key_norm = true},
    {.model_type = "seed_oss"},
    {.model_type = "gemma2",
     .norm = NormKind::kZeroCentredRms,
     .windows = Windows::kEvenLayers,
     .window = 4096,
     .gelu = true,
     .attention_softcap = 50,
     .logit_softcap = 30,
     .gemma = true},
    {.model_type = "gemma3_text",
     .norm = NormKind::kZeroCentredRms,
     .rope_base = 1e6,
     .windows = Windows::kPattern,
     .window = 4096,
     .query_key_norm = true,
     .gelu = true,
     .gemma = true},
    {.model_type = "cohere",
     .norm = NormKind::kLayer,
     .epsilon_key = "layer_norm_eps",
     .epsilon = 1e-5,
     .query_key_norm_by_config = true,
     .cohere = true},
    {.model_type = "qwen3_5_text",
     .norm = NormKind::kZeroCentredRms,
     .partial_rotary = 0.25,
     .query_key_norm = true,
     .hybrid = true},
    {.model_type = "qwen3_5_moe_text",
     .norm = NormKind::kZeroCentredRms,
     .partial_rotary = 0.25,
     .experts = Experts::kEveryLayer,
     .expert_top_k = 8,
     .renormalize_always = true,
     .query_key_norm = true,
     .hybrid = true},
};

const Family* FindRecipe(absl::string_view model_type) {
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type ||
        (absl::EndsWith(family.model_type, "_text") &&
         absl::StrCat(model_type, "_text") == family.model_type)) {
      return &family;
    }
  }
  return nullptr;
}

class RecipeMaker {
 public:
  RecipeMaker(const Family& family, const ModelConfig& config, const Json& level,
              int64_t context_tokens)
      : family_(family),
        config_(config),
        reader_(level, "config.json: "),
        context_tokens_(context_tokens > 0 ? context_tokens : config.context_tokens_max) {}

  absl::StatusOr<ModelRecipe> Make() {
    TakeSizes();
    TakeBlock();
    TakeExperts();
    absl::Status status = TakeLayers();
    status.Update(TakeRopes());
    status.Update(TakeActivation());
    status.Update(reader_.status());
    status.Update(CheckSizes());
    if (!status.ok()) {
      return status;
    }
    return std::move(recipe_);
  }

 private:
  void TakeSizes() {
    recipe_.model_type = config_.model_type;
    recipe_.hidden_size = config_.hidden_size;
    recipe_.intermediate_size = config_.intermediate_size;
    recipe_.vocabulary_size = config_.vocabulary_size;
    recipe_.context_tokens = config_.context_tokens_max;
    recipe_.head_count = config_.head_count;
    recipe_.key_value_head_count = config_.key_value_head_count;
    recipe_.head_size = config_.head_size;
    recipe_.tied_embeddings = config_.tied_embeddings;
    if (family_.hybrid) {
      recipe_.linear_key_heads = config_.linear_key_head_count;
      recipe_.linear_value_heads = config_.linear_value_head_count;
      recipe_.linear_key_size = config_.linear_key_head_size;
      recipe_.linear_value_size = config_.linear_value_head_size;
      recipe_.linear_taps = config_.linear_conv_kernel_size;
    }
  }

  void TakeBlock() {
    recipe_.norm = family_.norm;
    recipe_.epsilon = static_cast<float>(reader_.Number(family_.epsilon_key, family_.epsilon));
    recipe_.query_key_norm = family_.query_key_norm || (family_.query_key_norm_by_config &&
                                                        reader_.Boolean("use_qk_norm", false));
    recipe_.gated_attention = family_.hybrid;
    recipe_.parallel_block = family_.cohere;
    recipe_.interleaved_rope = family_.cohere;
    recipe_.sandwich_norms = family_.gemma;
    recipe_.scaled_embedding = family_.gemma;
    double scale_base = static_cast<double>(recipe_.head_size);
    if (family_.gemma) {
      scale_base = reader_.Number("query_pre_attn_scalar", 256);
      recipe_.attention_softcap = Softcap("attn_logit_softcapping", family_.attention_softcap);
      recipe_.logit_softcap = Softcap("final_logit_softcapping", family_.logit_softcap);
    }
    if (family_.cohere) {
      recipe_.logit_scale = static_cast<float>(reader_.Number("logit_scale", 0.0625));
    }
    recipe_.attention_scale = static_cast<float>(1 / std::sqrt(scale_base));
  }

  // Null says that there is none.
  float Softcap(absl::string_view key, double otherwise) {
    return static_cast<float>(reader_.Number(key, SaysNull(key) ? 0 : otherwise));
  }

  void TakeExperts() {
    if (family_.experts == Experts::kNone) {
      return;
    }
    recipe_.expert_count = config_.expert_count;
    recipe_.expert_intermediate_size = config_.expert_intermediate_size > 0
                                           ? config_.expert_intermediate_size
                                           : config_.intermediate_size;
    recipe_.expert_top_k = reader_.Integer("num_experts_per_tok", family_.expert_top_k);
    recipe_.renormalize_experts =
        family_.renormalize_always || reader_.Boolean("norm_topk_prob", false);
    recipe_.shared_expert_size = config_.shared_expert_intermediate_size;
  }

  // The window of layers that have one; 0: there is none.
  int64_t Window() {
    if (family_.windows == Windows::kNone) {
      return 0;
    }
    if (family_.windows == Windows::kUpperLayers && !reader_.Boolean("use_sliding_window", false)) {
      return 0;
    }
    // Null says that there is none; a file of Mixtral that does not say has none either.
    const bool has_default = family_.experts == Experts::kNone && !SaysNull("sliding_window");
    return reader_.Integer("sliding_window", has_default ? family_.window : 0);
  }

  bool SaysNull(absl::string_view key) const { return !reader_.Has(key) && reader_.Mentions(key); }

  bool HasWindow(int64_t layer, absl::string_view type) {
    if (!type.empty()) {
      return type == "sliding_attention";
    }
    switch (family_.windows) {
      case Windows::kNone:
        return false;
      case Windows::kAll:
        return true;
      case Windows::kEvenLayers:
        return layer % 2 == 0;
      case Windows::kPattern: {
        const int64_t pattern = reader_.Integer("sliding_window_pattern",
                                                reader_.Integer("_sliding_window_pattern", 6));
        return pattern <= 0 || (layer + 1) % pattern != 0;
      }
      case Windows::kUpperLayers:
        return layer >= reader_.Integer("max_window_layers", 28);
    }
    return false;
  }

  bool HasExperts(int64_t layer, const std::vector<int64_t>& dense_layers) {
    if (family_.experts != Experts::kSparse) {
      return family_.experts == Experts::kEveryLayer;
    }
    const int64_t step = reader_.Integer("decoder_sparse_step", 1);
    const bool dense =
        std::find(dense_layers.begin(), dense_layers.end(), layer) != dense_layers.end();
    return recipe_.expert_count > 0 && !dense && step > 0 && (layer + 1) % step == 0;
  }

  absl::Status TakeLayers() {
    const std::vector<std::string> types = reader_.Texts("layer_types");
    const std::vector<int64_t> dense_layers = reader_.Integers("mlp_only_layers");
    if (!types.empty() && std::ssize(types) != config_.layer_count) {
      return absl::DataLossError(absl::StrCat("config.json: \"layer_types\": expected ",
                                              config_.layer_count, " entries, found ",
                                              types.size()));
    }
    const int64_t window = Window();
    const int64_t interval = reader_.Integer("full_attention_interval", 4);
    for (int64_t index = 0; index < config_.layer_count; ++index) {
      const std::string type = types.empty() ? "" : types[static_cast<size_t>(index)];
      if (!type.empty() && type != "full_attention" && type != "sliding_attention" &&
          !(type == "linear_attention" && family_.hybrid)) {
        return absl::UnimplementedError(
            absl::StrCat("config.json: \"layer_types\": ", config_.model_type, " with \"", type,
                         "\" layers is not implemented"));
      }
      LayerRecipe layer;
      layer.linear_attention = type.empty()
                                   ? family_.hybrid && interval > 0 && (index + 1) % interval != 0
                                   : type == "linear_attention";
      layer.window = window > 0 && HasWindow(index, type) ? window : 0;
      layer.rope_index = family_.windows == Windows::kPattern && layer.window > 0 ? 1 : 0;
      layer.experts = HasExperts(index, dense_layers);
      recipe_.layers.push_back(layer);
    }
    return absl::OkStatus();
  }

  static RopeScaling ReadScaling(RecipeReader& reader) {
    RopeScaling scaling;
    scaling.type = reader.Text("rope_type", reader.Text("type", "default"));
    scaling.factor = reader.Number("factor", 0);
    scaling.low_frequency_factor = reader.Number("low_freq_factor", 0);
    scaling.high_frequency_factor = reader.Number("high_freq_factor", 0);
    scaling.original_context_tokens = reader.Integer("original_max_position_embeddings", 0);
    scaling.attention_factor = reader.Number("attention_factor", 0);
    scaling.beta_fast = reader.Number("beta_fast", 32);
    scaling.beta_slow = reader.Number("beta_slow", 1);
    scaling.mscale = reader.Number("mscale", 0);
    scaling.mscale_all_dim = reader.Number("mscale_all_dim", 0);
    scaling.truncate = reader.Boolean("truncate", true);
    if (scaling.type == "mrope") {
      scaling.type = "default";  // Text alone: the three positions of a token are equal.
    }
    return scaling;
  }

  // Of one type of layers: `parameters` is the newer object that has base and scaling together.
  absl::Status AddRope(RecipeReader parameters, double base, bool scaled) {
    const RopeScaling scaling = scaled ? ReadScaling(parameters) : RopeScaling();
    base = parameters.Number("rope_theta", base);
    const double partial = parameters.Number(
        "partial_rotary_factor", reader_.Number("partial_rotary_factor", family_.partial_rotary));
    reader_.Update(parameters);
    const auto rotary_size = static_cast<int64_t>(static_cast<double>(recipe_.head_size) * partial);
    if (!(base > 0) || rotary_size < 2 || rotary_size % 2 != 0 || rotary_size > recipe_.head_size) {
      return absl::DataLossError(
          absl::StrCat("config.json: rope: expected a positive \"rope_theta\" and an even number "
                       "of turned dimensions up to ",
                       recipe_.head_size, ", found ", base, " and ", rotary_size));
    }
    absl::StatusOr<RopeFrequencies> rope = MakeRopeFrequencies(
        scaling, base, rotary_size, config_.context_tokens_max, context_tokens_);
    if (!rope.ok()) {
      return rope.status();
    }
    recipe_.ropes.push_back(*std::move(rope));
    return absl::OkStatus();
  }

  absl::Status TakeRopes() {
    const double base = reader_.Number("rope_theta", family_.rope_base);
    RecipeReader parameters = reader_.Object("rope_parameters");
    const bool by_layer_type = parameters.Has("full_attention");
    if (by_layer_type) {
      absl::Status status = AddRope(parameters.Object("full_attention"), base, true);
      if (family_.windows == Windows::kPattern) {
        status.Update(AddRope(parameters.Object("sliding_attention"), 10'000, true));
      }
      return status;
    }
    const bool newer = reader_.Has("rope_parameters");
    absl::Status status =
        AddRope(newer ? std::move(parameters) : reader_.Object("rope_scaling"), base, true);
    if (family_.windows == Windows::kPattern) {
      static const Json nothing = Json::object();
      status.Update(AddRope(RecipeReader(nothing, ""),
                            reader_.Number("rope_local_base_freq", 10'000), false));
    }
    return status;
  }

  absl::Status TakeActivation() {
    recipe_.activation = family_.gelu ? Activation::kGeluTanh : Activation::kSilu;
    // Gemma's "hidden_act" says gelu and means the other key.
    const absl::string_view key = family_.gelu ? "hidden_activation" : "hidden_act";
    const absl::string_view expected = family_.gelu ? "gelu_pytorch_tanh" : "silu";
    const std::string found = reader_.Text(key, expected);
    return found == expected ? absl::OkStatus()
                             : absl::UnimplementedError(absl::StrCat(
                                   "config.json: \"", key, "\": ", config_.model_type,
                                   ": expected \"", expected, "\", found \"", found, "\""));
  }

  absl::Status CheckSizes() const {
    const bool attends = recipe_.head_count > 0 && recipe_.key_value_head_count > 0 &&
                         recipe_.head_size > 0 &&
                         recipe_.head_count % recipe_.key_value_head_count == 0;
    if (recipe_.hidden_size <= 0 || recipe_.vocabulary_size <= 0 || !attends) {
      return absl::DataLossError(
          "config.json: expected positive sizes, and attention heads that are a multiple of "
          "key/value heads");
    }
    if (recipe_.linear_layer_count() > 0 &&
        (recipe_.linear_key_heads <= 0 || recipe_.linear_value_heads <= 0 ||
         recipe_.linear_value_heads % recipe_.linear_key_heads != 0 ||
         recipe_.linear_key_size <= 0 || recipe_.linear_value_size <= 0 ||
         recipe_.linear_taps < 2)) {
      return absl::DataLossError("config.json: linear attention: sizes are missing or do not fit");
    }
    if (recipe_.expert_count > 0 &&
        (recipe_.expert_top_k <= 0 || recipe_.expert_top_k > recipe_.expert_count)) {
      return absl::DataLossError(
          absl::StrCat("config.json: \"num_experts_per_tok\": expected 1 to ", recipe_.expert_count,
                       ", found ", recipe_.expert_top_k));
    }
    return absl::OkStatus();
  }

  const Family& family_;
  const ModelConfig& config_;
  RecipeReader reader_;
  const int64_t context_tokens_;
  ModelRecipe recipe_;
};

}  // namespace

int64_t ModelRecipe::linear_layer_count() const {
  return std::count_if(layers.begin(), layers.end(),
                       [](const LayerRecipe& layer) { return layer.linear_attention; });
}

int64_t ModelRecipe::attention_layer_count() const {
  return std::ssize(layers) - linear_layer_count();
}

absl::StatusOr<ModelRecipe> MakeModelRecipe(const ModelConfig& config,
                                            absl::string_view config_json, int64_t context_tokens) {
  const Family* const family = FindRecipe(config.model_type);
  if (family == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("generation with model type \"", config.model_type, "\" is not implemented"));
  }
  const Json json = Json::parse(config_json.begin(), config_json.end(), nullptr, false);
  if (!json.is_object()) {
    return absl::DataLossError("config.json: not a JSON object (NaN and Infinity are none)");
  }
  const auto nested = json.find("text_config");
  const bool is_nested = config.nested && nested != json.end() && nested->is_object();
  return RecipeMaker(*family, config, is_nested ? *nested : json, context_tokens).Make();
}

}  // namespace nibble
