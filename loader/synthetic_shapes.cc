#include "loader/synthetic_shapes.h"

#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

enum class Family { kLlama, kQwen3Moe, kQwen35Moe };

// Shape letters as everywhere: H, I, L, V; heads/key_value_heads of head_size.
struct Shape {
  const char* name;
  const char* description;
  Family family;
  int64_t hidden_size;
  int64_t intermediate_size;  // Of one expert in MoE models.
  int64_t layer_count;
  int64_t head_count;
  int64_t key_value_head_count;
  int64_t head_size;
  int64_t vocabulary_size;
  int64_t expert_count;
  int64_t experts_per_token;
};

constexpr std::array<Shape, 8> kShapes = {{
    {"llama-tiny", "a few million parameters", Family::kLlama, 256, 704, 4, 8, 4, 32, 2048, 0, 0},
    {"llama-1b", "Llama of 1.1 B", Family::kLlama, 2048, 8192, 16, 32, 8, 64, 32000, 0, 0},
    {"llama-8b", "Llama-3-8B", Family::kLlama, 4096, 14336, 32, 32, 8, 128, 128256, 0, 0},
    {"llama-32b", "Llama as large as Qwen3-32B", Family::kLlama, 5120, 25600, 64, 64, 8, 128,
     151936, 0, 0},
    {"dense-35b", "llama-32b with 66 layers", Family::kLlama, 5120, 25600, 66, 64, 8, 128, 151936,
     0, 0},
    {"qwen3-moe-30b", "Qwen3-30B-A3B, a tensor for each expert", Family::kQwen3Moe, 2048, 768, 48,
     32, 4, 128, 151936, 128, 8},
    {"qwen3.5-35b-a3b", "Qwen3.5-35B-A3B in the hub's layout, fused experts", Family::kQwen35Moe,
     2048, 512, 40, 16, 2, 256, 248320, 256, 8},
    // 524288 * 4096 elements of 2 bytes are 4 GiB.
    {"one-big-tensor", "one layer with gate, up and down of 4 GiB each", Family::kLlama, 4096,
     524288, 1, 32, 8, 128, 2048, 0, 0},
}};

// Qwen3.5's gated DeltaNet (reference: 35B-A3B's text_config).
constexpr int64_t kLinearKeyHeads = 16;
constexpr int64_t kLinearValueHeads = 32;
constexpr int64_t kLinearHeadSize = 128;
constexpr int64_t kLinearConvKernel = 4;
constexpr int64_t kFullAttentionInterval = 4;

constexpr int64_t kContextTokens = 32768;

class TensorList {
 public:
  void Add(std::string name, std::vector<int64_t> shape, float mean = 0,
           Dtype dtype = Dtype::kBf16) {
    tensors_.push_back({std::move(name), std::move(shape), dtype, mean});
  }
  // gate_proj, up_proj, down_proj of an MLP or an expert.
  void AddMlp(const std::string& prefix, int64_t hidden, int64_t intermediate) {
    Add(prefix + "gate_proj.weight", {intermediate, hidden});
    Add(prefix + "up_proj.weight", {intermediate, hidden});
    Add(prefix + "down_proj.weight", {hidden, intermediate});
  }
  // `query_rows` is per head: twice the head size where queries are gated.
  void AddAttention(const std::string& prefix, const Shape& shape, int64_t query_rows) {
    const int64_t hidden = shape.hidden_size;
    const int64_t key_value_rows = shape.key_value_head_count * shape.head_size;
    Add(prefix + "q_proj.weight", {shape.head_count * query_rows, hidden});
    Add(prefix + "k_proj.weight", {key_value_rows, hidden});
    Add(prefix + "v_proj.weight", {key_value_rows, hidden});
    Add(prefix + "o_proj.weight", {hidden, shape.head_count * shape.head_size});
  }
  std::vector<SyntheticTensor> Take() { return std::move(tensors_); }

 private:
  std::vector<SyntheticTensor> tensors_;
};

// Embedding, layers by `add_layer`, final norm, head.
std::vector<SyntheticTensor> Decoder(
    const Shape& shape, const std::string& prefix, float norm_mean,
    const std::function<void(TensorList&, const std::string&, int64_t)>& add_layer) {
  TensorList list;
  list.Add(prefix + "embed_tokens.weight", {shape.vocabulary_size, shape.hidden_size});
  for (int64_t layer = 0; layer < shape.layer_count; ++layer) {
    const std::string layer_prefix = absl::StrCat(prefix, "layers.", layer, ".");
    list.Add(layer_prefix + "input_layernorm.weight", {shape.hidden_size}, norm_mean);
    list.Add(layer_prefix + "post_attention_layernorm.weight", {shape.hidden_size}, norm_mean);
    add_layer(list, layer_prefix, layer);
  }
  list.Add(prefix + "norm.weight", {shape.hidden_size}, norm_mean);
  list.Add("lm_head.weight", {shape.vocabulary_size, shape.hidden_size});
  return list.Take();
}

std::vector<SyntheticTensor> LlamaTensors(const Shape& shape) {
  return Decoder(shape, "model.", 1, [&](TensorList& list, const std::string& prefix, int64_t) {
    list.AddAttention(prefix + "self_attn.", shape, shape.head_size);
    list.AddMlp(prefix + "mlp.", shape.hidden_size, shape.intermediate_size);
  });
}

std::vector<SyntheticTensor> Qwen3MoeTensors(const Shape& shape) {
  return Decoder(shape, "model.", 1, [&](TensorList& list, const std::string& prefix, int64_t) {
    list.AddAttention(prefix + "self_attn.", shape, shape.head_size);
    list.Add(prefix + "self_attn.q_norm.weight", {shape.head_size}, 1);
    list.Add(prefix + "self_attn.k_norm.weight", {shape.head_size}, 1);
    list.Add(prefix + "mlp.gate.weight", {shape.expert_count, shape.hidden_size});
    for (int64_t expert = 0; expert < shape.expert_count; ++expert) {
      list.AddMlp(absl::StrCat(prefix, "mlp.experts.", expert, "."), shape.hidden_size,
                  shape.intermediate_size);
    }
  });
}

void AddLinearAttention(TensorList& list, const std::string& prefix, int64_t hidden) {
  const int64_t key_rows = kLinearKeyHeads * kLinearHeadSize;
  const int64_t value_rows = kLinearValueHeads * kLinearHeadSize;
  const int64_t conv_rows = 2 * key_rows + value_rows;
  list.Add(prefix + "in_proj_qkv.weight", {conv_rows, hidden});
  list.Add(prefix + "in_proj_z.weight", {value_rows, hidden});
  list.Add(prefix + "in_proj_b.weight", {kLinearValueHeads, hidden});
  list.Add(prefix + "in_proj_a.weight", {kLinearValueHeads, hidden});
  list.Add(prefix + "conv1d.weight", {conv_rows, 1, kLinearConvKernel});
  list.Add(prefix + "A_log", {kLinearValueHeads}, 0, Dtype::kF32);
  list.Add(prefix + "dt_bias", {kLinearValueHeads});
  list.Add(prefix + "norm.weight", {kLinearHeadSize}, 1, Dtype::kF32);
  list.Add(prefix + "out_proj.weight", {hidden, value_rows});
}

bool IsFullAttention(int64_t layer) { return (layer + 1) % kFullAttentionInterval == 0; }

// Its norms multiply by 1 + weight, but for the one of linear attention. Beside the text model
// stand a little of the vision tower and of multi-token prediction, which a loader must skip.
std::vector<SyntheticTensor> Qwen35MoeTensors(const Shape& shape) {
  const int64_t hidden = shape.hidden_size;
  const int64_t intermediate = shape.intermediate_size;
  std::vector<SyntheticTensor> tensors = Decoder(
      shape, "model.language_model.", 0,
      [&](TensorList& list, const std::string& prefix, int64_t layer) {
        if (IsFullAttention(layer)) {
          list.AddAttention(prefix + "self_attn.", shape, 2 * shape.head_size);
          list.Add(prefix + "self_attn.q_norm.weight", {shape.head_size});
          list.Add(prefix + "self_attn.k_norm.weight", {shape.head_size});
        } else {
          AddLinearAttention(list, prefix + "linear_attn.", hidden);
        }
        list.Add(prefix + "mlp.gate.weight", {shape.expert_count, hidden});
        list.Add(prefix + "mlp.experts.gate_up_proj",
                 {shape.expert_count, 2 * intermediate, hidden});
        list.Add(prefix + "mlp.experts.down_proj", {shape.expert_count, hidden, intermediate});
        list.AddMlp(prefix + "mlp.shared_expert.", hidden, intermediate);
        list.Add(prefix + "mlp.shared_expert_gate.weight", {1, hidden});
      });
  tensors.push_back(
      {"model.visual.patch_embed.proj.weight", {1152, 3, 2, 16, 16}, Dtype::kBf16, 0});
  tensors.push_back({"model.visual.blocks.0.attn.proj.weight", {1152, 1152}, Dtype::kBf16, 0});
  tensors.push_back({"mtp.fc.weight", {hidden, 2 * hidden}, Dtype::kBf16, 0});
  tensors.push_back({"mtp.norm.weight", {hidden}, Dtype::kBf16, 0});
  return tensors;
}

// What every family's config has.
Json DecoderConfig(const Shape& shape, const char* model_type) {
  return Json{{"model_type", model_type},
              {"hidden_size", shape.hidden_size},
              {"num_hidden_layers", shape.layer_count},
              {"num_attention_heads", shape.head_count},
              {"num_key_value_heads", shape.key_value_head_count},
              {"head_dim", shape.head_size},
              {"hidden_act", "silu"},
              {"vocab_size", shape.vocabulary_size},
              {"max_position_embeddings", kContextTokens},
              {"initializer_range", 0.02},
              {"attention_bias", false},
              {"eos_token_id", kSyntheticEndTokenId},
              {"tie_word_embeddings", false},
              {"torch_dtype", "bfloat16"}};
}

Json LlamaConfig(const Shape& shape) {
  Json config = {{"architectures", {"LlamaForCausalLM"}}};
  config.update(DecoderConfig(shape, "llama"));
  config.update({{"intermediate_size", shape.intermediate_size},
                 {"mlp_bias", false},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 500000.0}});
  return config;
}

Json Qwen3MoeConfig(const Shape& shape) {
  Json config = {{"architectures", {"Qwen3MoeForCausalLM"}}};
  config.update(DecoderConfig(shape, "qwen3_moe"));
  config.update({{"intermediate_size", 3 * shape.hidden_size},
                 {"moe_intermediate_size", shape.intermediate_size},
                 {"num_experts", shape.expert_count},
                 {"num_experts_per_tok", shape.experts_per_token},
                 {"norm_topk_prob", true},
                 {"decoder_sparse_step", 1},
                 {"mlp_only_layers", Json::array()},
                 {"rms_norm_eps", 1e-6},
                 {"rope_theta", 1000000.0}});
  return config;
}

Json Qwen35MoeConfig(const Shape& shape) {
  Json text = DecoderConfig(shape, "qwen3_5_moe_text");
  Json layer_types = Json::array();
  for (int64_t layer = 0; layer < shape.layer_count; ++layer) {
    layer_types.push_back(IsFullAttention(layer) ? "full_attention" : "linear_attention");
  }
  text.update({{"moe_intermediate_size", shape.intermediate_size},
               {"shared_expert_intermediate_size", shape.intermediate_size},
               {"num_experts", shape.expert_count},
               {"num_experts_per_tok", shape.experts_per_token},
               {"full_attention_interval", kFullAttentionInterval},
               {"layer_types", std::move(layer_types)},
               {"linear_num_key_heads", kLinearKeyHeads},
               {"linear_num_value_heads", kLinearValueHeads},
               {"linear_key_head_dim", kLinearHeadSize},
               {"linear_value_head_dim", kLinearHeadSize},
               {"linear_conv_kernel_dim", kLinearConvKernel},
               {"rms_norm_eps", 1e-6},
               {"rope_parameters",
                {{"rope_theta", 1e7}, {"rope_type", "default"}, {"partial_rotary_factor", 0.25}}}});
  return {{"architectures", {"Qwen3_5MoeForConditionalGeneration"}},
          {"model_type", "qwen3_5_moe"},
          {"text_config", std::move(text)},
          {"vision_config", {{"model_type", "qwen3_5_moe"}, {"depth", 1}}},
          {"tie_word_embeddings", false}};
}

}  // namespace

std::vector<std::string> SyntheticShapeNames() {
  std::vector<std::string> names;
  names.reserve(std::size(kShapes));
  for (const Shape& shape : kShapes) {
    names.emplace_back(shape.name);
  }
  return names;
}

SyntheticModel MakeSyntheticModel(absl::string_view name) {
  const auto shape = std::find_if(kShapes.begin(), kShapes.end(),
                                  [name](const Shape& known) { return known.name == name; });
  Check(shape != kShapes.end(), "the shape is one of the list");
  SyntheticModel model;
  model.name = shape->name;
  model.description = shape->description;
  model.vocabulary_size = shape->vocabulary_size;
  Json config;
  switch (shape->family) {
    case Family::kLlama:
      config = LlamaConfig(*shape);
      model.tensors = LlamaTensors(*shape);
      break;
    case Family::kQwen3Moe:
      config = Qwen3MoeConfig(*shape);
      model.tensors = Qwen3MoeTensors(*shape);
      break;
    case Family::kQwen35Moe:
      config = Qwen35MoeConfig(*shape);
      model.tensors = Qwen35MoeTensors(*shape);
      break;
  }
  model.config_json = config.dump(2) + "\n";
  return model;
}

int64_t ElementCount(const SyntheticTensor& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1},
                         std::multiplies<int64_t>());
}

}  // namespace nibble
