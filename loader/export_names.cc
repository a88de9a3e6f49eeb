#include "loader/export_names.h"

#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "loader/weight_names.h"

namespace nibble {
namespace {

constexpr absl::string_view kMixtral = "mixtral";
constexpr absl::string_view kExperts = ".experts.";
constexpr absl::string_view kWeight = ".weight";

// Source: huggingface/transformers 5.17, models/auto/modeling_auto.py, the causal language models.
constexpr TextClass kTextClasses[] = {
    {"qwen3_5_text", "Qwen3_5ForCausalLM"},
    {"qwen3_5_moe_text", "Qwen3_5MoeForCausalLM"},
    {"gemma3_text", "Gemma3ForCausalLM"},
};

// What is done by one expert.
enum class Projection { kGate, kUp, kDown };

bool IsFused(const PlannedTensor& tensor) {
  const Role role = tensor.weight.role;
  return role == Role::kExpertsGateUp || role == Role::kExpertsDown;
}

// Whether each of its parts is a unit.
bool IsTakenApart(const PlannedTensor& tensor) {
  return tensor.quantized() && tensor.form != SourceForm::kFourBit && IsFused(tensor);
}

std::string ProjectionName(bool mixtral, Projection projection) {
  constexpr std::array<absl::string_view, 3> kNames = {"gate_proj", "up_proj", "down_proj"};
  constexpr std::array<absl::string_view, 3> kMixtralNames = {"w1", "w3", "w2"};
  return std::string((mixtral ? kMixtralNames : kNames)[static_cast<size_t>(projection)]);
}

// The name as the text model alone has it.
std::string TextName(absl::string_view name) {
  absl::string_view rest = name;
  if (absl::ConsumePrefix(&rest, "model.language_model.") ||
      absl::ConsumePrefix(&rest, "language_model.model.")) {
    return absl::StrCat("model.", rest);
  }
  if (absl::ConsumePrefix(&rest, "language_model.")) {
    return absl::StrCat(absl::StartsWith(rest, "lm_head") ? "" : "model.", rest);
  }
  return std::string(name);
}

// Mixtral's words for its experts and router, which it has whatever the source calls them.
std::string MixtralName(std::string name, Role role) {
  const auto projection = role == Role::kExpertGate   ? Projection::kGate
                          : role == Role::kExpertUp   ? Projection::kUp
                          : role == Role::kExpertDown ? Projection::kDown
                                                      : std::optional<Projection>();
  if (projection.has_value()) {
    const std::string stem(absl::StripSuffix(name, kWeight));
    name = absl::StrCat(stem.substr(0, stem.rfind('.')), ".", ProjectionName(true, *projection),
                        kWeight);
  }
  return projection.has_value() || role == Role::kRouter
             ? absl::StrReplaceAll(name, {{".mlp.", ".block_sparse_moe."}})
             : name;
}

}  // namespace

std::vector<ExportUnit> UnitsOf(const PlannedTensor& tensor) {
  const int64_t part_count = std::ssize(tensor.parts);
  if (!IsTakenApart(tensor)) {
    return {{&tensor, 0, part_count}};
  }
  std::vector<ExportUnit> units;
  units.reserve(tensor.parts.size());
  for (int64_t part = 0; part < part_count; ++part) {
    units.push_back({&tensor, part, 1});
  }
  return units;
}

std::string ExportedName(const ModelConfig& config, const ExportUnit& unit) {
  const PlannedTensor& tensor = *unit.tensor;
  const bool mixtral = config.model_type == kMixtral;
  std::string name = config.nested ? TextName(tensor.name) : tensor.name;
  if (!IsTakenApart(tensor)) {
    return mixtral ? MixtralName(std::move(name), tensor.weight.role) : name;
  }
  const bool halves = tensor.weight.role == Role::kExpertsGateUp;
  const int64_t expert = halves ? unit.first_part / 2 : unit.first_part;
  const Projection projection = !halves                    ? Projection::kDown
                                : unit.first_part % 2 == 0 ? Projection::kGate
                                                           : Projection::kUp;
  const std::string block = name.substr(0, absl::string_view(name).rfind(kExperts));
  return absl::StrCat(mixtral ? absl::StrReplaceAll(block, {{".mlp", ".block_sparse_moe"}}) : block,
                      kExperts, expert, ".", ProjectionName(mixtral, projection), kWeight);
}

std::vector<int64_t> ExportedShape(const ExportUnit& unit) {
  const PlannedTensor& tensor = *unit.tensor;
  if (!IsTakenApart(tensor)) {
    return tensor.shape;
  }
  const int64_t halves = tensor.weight.role == Role::kExpertsGateUp ? 2 : 1;
  return {tensor.shape[1] / halves, tensor.shape[2]};
}

std::optional<TextClass> FindTextClass(absl::string_view model_type) {
  for (const TextClass& text_class : kTextClasses) {
    if (text_class.model_type == model_type) {
      return text_class;
    }
  }
  return std::nullopt;
}

bool KnowsFusedExperts(absl::string_view model_type) { return FindFamily(model_type) != nullptr; }

}  // namespace nibble
