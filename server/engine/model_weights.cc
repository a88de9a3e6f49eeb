#include "server/engine/model_weights.h"

#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

MatrixFormat FormatOf(const PlannedTensor& tensor) {
  switch (tensor.format) {
    case Format::kNf4:
      return MatrixFormat::kNf4;
    case Format::kFp4:
      return MatrixFormat::kFp4;
    case Format::kAsStored:
      break;
  }
  switch (ElementType(tensor)) {
    case FloatType::kF32:
      return MatrixFormat::kF32;
    case FloatType::kF16:
      return MatrixFormat::kF16;
    case FloatType::kBf16:
      return MatrixFormat::kBf16;
  }
  return MatrixFormat::kBf16;
}

// A tensor's name behind its layer: "self_attn.q_proj.weight". Of no layer: its last two words.
std::string TailOf(const PlannedTensor& tensor) {
  const std::string& name = tensor.name;
  if (tensor.weight.layer_index >= 0) {
    const std::string layer = absl::StrCat("layers.", tensor.weight.layer_index, ".");
    const size_t place = name.find(layer);
    return place == std::string::npos ? name : name.substr(place + layer.size());
  }
  const size_t last = name.rfind('.');
  const size_t before = last == std::string::npos || last == 0 ? last : name.rfind('.', last - 1);
  return before == std::string::npos ? name : name.substr(before + 1);
}

class Binder {
 public:
  Binder(const ModelRecipe& recipe, const Weights& weights) : recipe_(recipe), weights_(weights) {
    for (const PlannedTensor& tensor : weights.plan().tensors) {
      if (tensor.loaded) {
        tensors_[{tensor.weight.layer_index, TailOf(tensor)}] = &tensor;
        by_role_[{tensor.weight.layer_index, tensor.weight.role, tensor.weight.expert_index}] =
            &tensor;
      }
    }
  }

  absl::StatusOr<ModelWeights> Bind() {
    ModelWeights model;
    model.embedding = Linear(-1, "embed_tokens").matrix;
    if (const PlannedTensor* table = Find(-1, "embed_tokens.weight");
        table != nullptr && !table->quantized()) {
      model.embedding_type = ElementType(*table);
    }
    model.norm = Vector(-1, "norm.weight");
    const bool has_head = Find(-1, "lm_head.weight") != nullptr;
    model.head = recipe_.tied_embeddings || !has_head ? LinearWeights{model.embedding, {}}
                                                      : Linear(-1, "lm_head");
    if (!recipe_.tied_embeddings && !has_head) {
      Missing(-1, "lm_head.weight");
    }
    for (int index = 0; index < static_cast<int>(recipe_.layers.size()); ++index) {
      model.layers.push_back(Layer(index));
    }
    if (!status_.ok()) {
      return status_;
    }
    return model;
  }

 private:
  const PlannedTensor* Find(int layer, const std::string& tail) const {
    const auto found = tensors_.find({layer, tail});
    return found == tensors_.end() ? nullptr : found->second;
  }

  void Missing(int layer, absl::string_view what) {
    status_.Update(absl::FailedPreconditionError(
        absl::StrCat("generation with ", recipe_.model_type, ": ",
                     layer < 0 ? "" : absl::StrCat("layer ", layer, ": "), what, " is missing")));
  }

  WeightVector Vector(int layer, const std::string& tail, bool optional = false) {
    const PlannedTensor* const tensor = Find(layer, tail);
    if (tensor == nullptr) {
      if (!optional) {
        Missing(layer, tail);
      }
      return {};
    }
    if (tensor->quantized()) {
      status_.Update(absl::UnimplementedError(
          absl::StrCat(tensor->name, ": a vector in 4 bits is not implemented")));
      return {};
    }
    return {ElementType(*tensor), weights_.plane(*tensor, tensor->parts.front(), Plane::kData)};
  }

  MatrixPlanes Planes(const PlannedTensor& tensor, const PlannedPart& part) const {
    MatrixPlanes planes;
    planes.data = weights_.plane(tensor, part, Plane::kData).address();
    planes.scales = weights_.plane(tensor, part, Plane::kScales).address();
    if (tensor.double_quantized) {
      planes.scale_maxima = weights_.plane(tensor, part, Plane::kScaleMaxima).address();
      planes.scale_mean = weights_.scale_mean(part).address();
      planes.scale_map = weights_.scale_map(tensor).address();
    }
    return planes;
  }

  MatrixShape Shape(const PlannedTensor& tensor, int64_t rows, int64_t columns) {
    if (tensor.layout != WeightLayout::kPlain) {
      status_.Update(absl::UnimplementedError(
          absl::StrCat(tensor.name, ": our kernels take the plain layout alone")));
    }
    return {FormatOf(tensor), rows, columns, tensor.block_size, tensor.double_quantized};
  }

  LinearWeights Linear(int layer, const std::string& stem, int64_t rows = 0, int64_t columns = 0) {
    const PlannedTensor* const tensor = Find(layer, stem + ".weight");
    if (tensor == nullptr) {
      Missing(layer, stem + ".weight");
      return {};
    }
    if (tensor->shape.size() != 2 || (rows > 0 && tensor->shape[0] != rows) ||
        (columns > 0 && tensor->shape[1] != columns)) {
      status_.Update(absl::DataLossError(absl::StrCat(tensor->name, ": expected [", rows, ", ",
                                                      columns, "], found another shape")));
      return {};
    }
    LinearWeights linear;
    linear.matrix = {Shape(*tensor, tensor->shape[0], tensor->shape[1]),
                     Planes(*tensor, tensor->parts.front())};
    linear.bias = Vector(layer, stem + ".bias", true);
    return linear;
  }

  // One matrix of every expert: of tensors of their own, or every `step`th part of a fused one.
  ExpertWeights Experts(int layer, Role single, Role fused, size_t first_part, size_t step,
                        int64_t rows, int64_t columns) {
    ExpertWeights experts;
    for (int expert = 0; expert < static_cast<int>(recipe_.expert_count); ++expert) {
      auto found = by_role_.find({layer, single, expert});
      size_t part = 0;
      if (found == by_role_.end()) {
        found = by_role_.find({layer, fused, -1});
        part = first_part + step * static_cast<size_t>(expert);
      }
      if (found == by_role_.end() || part >= found->second->parts.size() ||
          found->second->parts[part].element_count != rows * columns) {
        Missing(layer, absl::StrCat(RoleName(single), " of expert ", expert, " as [", rows, ", ",
                                    columns, "]"));
        return experts;
      }
      const PlannedTensor& tensor = *found->second;
      const MatrixShape shape = Shape(tensor, rows, columns);
      if (expert > 0 &&
          (shape.format != experts.shape.format || shape.block_size != experts.shape.block_size ||
           shape.double_quantized != experts.shape.double_quantized)) {
        status_.Update(absl::UnimplementedError(
            absl::StrCat(tensor.name, ": experts of a layer in different formats")));
      }
      experts.shape = shape;
      experts.planes.push_back(Planes(tensor, tensor.parts[part]));
    }
    return experts;
  }

  MlpWeights Mlp(int layer, const std::string& stem, int64_t size) {
    const int64_t hidden = recipe_.hidden_size;
    return {Linear(layer, stem + "gate_proj", size, hidden),
            Linear(layer, stem + "up_proj", size, hidden),
            Linear(layer, stem + "down_proj", hidden, size)};
  }

  ExpertsWeights ExpertsOf(int layer) {
    ExpertsWeights experts;
    const int64_t hidden = recipe_.hidden_size;
    const int64_t size = recipe_.expert_intermediate_size;
    const bool mixtral = Find(layer, "block_sparse_moe.gate.weight") != nullptr;
    experts.router =
        Linear(layer, mixtral ? "block_sparse_moe.gate" : "mlp.gate", recipe_.expert_count, hidden);
    experts.gate = Experts(layer, Role::kExpertGate, Role::kExpertsGateUp, 0, 2, size, hidden);
    experts.up = Experts(layer, Role::kExpertUp, Role::kExpertsGateUp, 1, 2, size, hidden);
    experts.down = Experts(layer, Role::kExpertDown, Role::kExpertsDown, 0, 1, hidden, size);
    if (recipe_.shared_expert_size > 0) {
      experts.shared = Mlp(layer, "mlp.shared_expert.", recipe_.shared_expert_size);
      experts.shared_router = Linear(layer, "mlp.shared_expert_gate", 1, hidden);
    }
    return experts;
  }

  AttentionWeights Attention(int layer) {
    const int64_t hidden = recipe_.hidden_size;
    const int64_t query = recipe_.head_count * recipe_.head_size;
    const int64_t key_value = recipe_.key_value_head_count * recipe_.head_size;
    AttentionWeights attention;
    attention.query =
        Linear(layer, "self_attn.q_proj", query * (recipe_.gated_attention ? 2 : 1), hidden);
    attention.key = Linear(layer, "self_attn.k_proj", key_value, hidden);
    attention.value = Linear(layer, "self_attn.v_proj", key_value, hidden);
    attention.output = Linear(layer, "self_attn.o_proj", hidden, query);
    if (recipe_.query_key_norm) {
      attention.query_norm = Vector(layer, "self_attn.q_norm.weight");
      attention.key_norm = Vector(layer, "self_attn.k_norm.weight");
    }
    return attention;
  }

  LinearAttentionWeights LinearAttention(int layer) {
    const int64_t hidden = recipe_.hidden_size;
    const int64_t value = recipe_.linear_value_heads * recipe_.linear_value_size;
    LinearAttentionWeights linear;
    linear.query_key_value =
        Linear(layer, "linear_attn.in_proj_qkv", recipe_.linear_channels(), hidden);
    linear.output_gate = Linear(layer, "linear_attn.in_proj_z", value, hidden);
    linear.decay_gate = Linear(layer, "linear_attn.in_proj_a", recipe_.linear_value_heads, hidden);
    linear.write_gate = Linear(layer, "linear_attn.in_proj_b", recipe_.linear_value_heads, hidden);
    linear.output = Linear(layer, "linear_attn.out_proj", hidden, value);
    linear.convolution = Vector(layer, "linear_attn.conv1d.weight");
    linear.decay = Vector(layer, "linear_attn.A_log");
    linear.bias = Vector(layer, "linear_attn.dt_bias");
    linear.norm = Vector(layer, "linear_attn.norm.weight");
    return linear;
  }

  LayerWeights Layer(int index) {
    const LayerRecipe& recipe = recipe_.layers[static_cast<size_t>(index)];
    LayerWeights layer;
    layer.input_norm = Vector(index, "input_layernorm.weight");
    if (recipe_.sandwich_norms) {
      layer.attention_output_norm = Vector(index, "post_attention_layernorm.weight");
      layer.mlp_norm = Vector(index, "pre_feedforward_layernorm.weight");
      layer.mlp_output_norm = Vector(index, "post_feedforward_layernorm.weight");
    } else if (!recipe_.parallel_block) {
      layer.mlp_norm = Vector(index, "post_attention_layernorm.weight");
    }
    if (recipe.linear_attention) {
      layer.linear_attention = LinearAttention(index);
    } else {
      layer.attention = Attention(index);
    }
    if (recipe.experts) {
      layer.experts = ExpertsOf(index);
    } else {
      layer.mlp = Mlp(index, "mlp.", recipe_.intermediate_size);
    }
    return layer;
  }

  const ModelRecipe& recipe_;
  const Weights& weights_;
  std::map<std::pair<int, std::string>, const PlannedTensor*> tensors_;
  std::map<std::tuple<int, Role, int>, const PlannedTensor*> by_role_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<ModelWeights> BindWeights(const ModelRecipe& recipe, const Weights& weights) {
  return Binder(recipe, weights).Bind();
}

}  // namespace nibble
