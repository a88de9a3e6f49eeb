#include "loader/missing_weights.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "loader/tensor_path.h"

namespace nibble {
namespace {

// Names in one warning; more would hide the others.
constexpr size_t kNamedMax = 4;

constexpr absl::string_view kLayerStep = "layers.{layer}.";
constexpr absl::string_view kExpertStep = "{expert}";

enum class Module { kLayer, kSelfAttention, kLinearAttention, kFeedForward, kExperts };
constexpr size_t kModuleCount = 5;

// Without which a module is none. Everything else, such as biases, some models of a family have and
// others have not, so that only layers can be compared.
constexpr std::pair<Module, absl::string_view> kRequired[] = {
    {Module::kSelfAttention, "self_attn.q_proj.weight"},
    {Module::kSelfAttention, "self_attn.k_proj.weight"},
    {Module::kSelfAttention, "self_attn.v_proj.weight"},
    {Module::kSelfAttention, "self_attn.o_proj.weight"},
    {Module::kFeedForward, "mlp.gate_proj.weight"},
    {Module::kFeedForward, "mlp.up_proj.weight"},
    {Module::kFeedForward, "mlp.down_proj.weight"},
};

// Whether the table of the family has given the role, to a weight that the model computes with.
bool IsKnown(Role role) {
  switch (role) {
    case Role::kRotaryBuffer:
    case Role::kVision:
    case Role::kMultiTokenPrediction:
    case Role::kLinear:
    case Role::kOther:
      return false;
    default:
      return true;
  }
}

Module ModuleOf(absl::string_view pattern, Role role) {
  if (absl::StrContains(pattern, ".self_attn.")) {
    return Module::kSelfAttention;
  }
  if (absl::StrContains(pattern, ".linear_attn.")) {
    return Module::kLinearAttention;
  }
  if (absl::StrContains(pattern, ".mlp.") || absl::StrContains(pattern, ".block_sparse_moe.")) {
    const bool dense =
        role == Role::kGate || role == Role::kUp || role == Role::kDown || role == Role::kBias;
    return dense ? Module::kFeedForward : Module::kExperts;
  }
  return Module::kLayer;
}

// Counts names and keeps the first.
struct Missing {
  int64_t count = 0;
  std::vector<std::string> names;

  void Add(absl::string_view pattern, int64_t layer, int64_t expert, int64_t how_many = 1) {
    count += how_many;
    if (names.size() < kNamedMax) {
      names.push_back(absl::StrReplaceAll(
          pattern, {{"{layer}", absl::StrCat(layer)}, {kExpertStep, absl::StrCat(expert)}}));
    }
  }
};

// What layers have. Patterns are names with {layer} and {expert}; the tables of a family bound how
// many there are.
class LayerInventory {
 public:
  explicit LayerInventory(const std::vector<PlannedTensor>& tensors) {
    for (const PlannedTensor& tensor : tensors) {
      if (tensor.weight.layer_index >= 0 && IsKnown(tensor.weight.role)) {
        std::string pattern = ParseTensorPath(tensor.name).name;
        const Module module = ModuleOf(pattern, tensor.weight.role);
        seen_.push_back({tensor.weight.layer_index, PatternIndex(std::move(pattern), module),
                         tensor.weight.expert_index});
      }
    }
    std::sort(seen_.begin(), seen_.end());
    AddRequired();
  }

  void CheckLayers(const ModelConfig& config, Missing& missing) const {
    for (auto begin = seen_.begin(); begin != seen_.end();) {
      const auto end = std::find_if(
          begin, seen_.end(), [begin](const Seen& seen) { return seen.layer != begin->layer; });
      CheckLayer({begin, end}, config, missing);
      begin = end;
    }
  }

  // How many layers below `count` there are, and the first of those that are not.
  std::pair<int64_t, int64_t> CountLayers(int64_t count) const {
    int64_t present = 0;
    int64_t first_missing = 0;
    int last = -1;
    for (const Seen& seen : seen_) {
      if (seen.layer != last && seen.layer < count) {
        ++present;
        first_missing += seen.layer == first_missing ? 1 : 0;
      }
      last = seen.layer;
    }
    return {present, first_missing};
  }

 private:
  struct Seen {
    int layer;
    int pattern;
    int expert;
    friend bool operator<(const Seen& a, const Seen& b) {
      return std::tie(a.layer, a.pattern, a.expert) < std::tie(b.layer, b.pattern, b.expert);
    }
  };
  struct Pattern {
    std::string name;
    Module module;
    bool of_an_expert;
  };

  int PatternIndex(std::string name, Module module) {
    const auto [place, is_new] = indices_.try_emplace(name, static_cast<int>(patterns_.size()));
    if (is_new) {
      const bool of_an_expert = absl::StrContains(name, kExpertStep);
      patterns_.push_back({std::move(name), module, of_an_expert});
    }
    return place->second;
  }

  bool HasModule(Module module) const {
    return std::any_of(patterns_.begin(), patterns_.end(),
                       [module](const Pattern& pattern) { return pattern.module == module; });
  }

  void AddRequired() {
    std::array<std::string, kModuleCount> prefixes;
    for (const Pattern& pattern : patterns_) {
      prefixes[static_cast<size_t>(pattern.module)] = pattern.name.substr(
          0, absl::string_view(pattern.name).find(kLayerStep) + kLayerStep.size());
    }
    for (const auto& [module, name] : kRequired) {
      if (const std::string& prefix = prefixes[static_cast<size_t>(module)]; !prefix.empty()) {
        PatternIndex(absl::StrCat(prefix, name), module);
      }
    }
  }

  // `one` or, where no layer has that, `other`: what a layer with neither of them lacks.
  void Want(Module one, Module other, std::array<bool, kModuleCount>& wanted) const {
    if (!wanted[static_cast<size_t>(one)] && !wanted[static_cast<size_t>(other)]) {
      wanted[static_cast<size_t>(HasModule(one) ? one : other)] = true;
    }
  }

  // `layer` is all that is seen of one.
  void CheckLayer(std::span<const Seen> layer, const ModelConfig& config, Missing& missing) const {
    const int64_t expert_count = std::max(config.expert_count, int64_t{1});
    std::vector<int64_t> counts(patterns_.size());  // Experts below expert_count; or one.
    std::vector<int64_t> first_missing(patterns_.size());
    std::array<bool, kModuleCount> wanted = {true};
    for (const Seen& seen : layer) {
      const auto index = static_cast<size_t>(seen.pattern);
      if (seen.expert < expert_count) {
        ++counts[index];
        first_missing[index] += seen.expert == first_missing[index] ? 1 : 0;
      }
      wanted[static_cast<size_t>(patterns_[index].module)] = true;
    }
    Want(Module::kSelfAttention, Module::kLinearAttention, wanted);
    Want(Module::kFeedForward, Module::kExperts, wanted);
    for (size_t index = 0; index < patterns_.size(); ++index) {
      const Pattern& pattern = patterns_[index];
      const int64_t expected = pattern.of_an_expert ? expert_count : 1;
      if (wanted[static_cast<size_t>(pattern.module)] && counts[index] < expected) {
        missing.Add(pattern.name, layer.front().layer, first_missing[index],
                    expected - counts[index]);
      }
    }
  }

  std::vector<Seen> seen_;  // Sorted.
  std::vector<Pattern> patterns_;
  std::map<std::string, int> indices_;
};

// What is of no layer.
void CheckEnds(const std::vector<PlannedTensor>& tensors, Missing& missing) {
  const auto has = [&tensors](Role role) {
    return std::any_of(tensors.begin(), tensors.end(), [role](const PlannedTensor& tensor) {
      return tensor.weight.role == role && tensor.weight.layer_index < 0;
    });
  };
  if (!has(Role::kEmbedding)) {
    missing.Add("embed_tokens.weight", 0, 0);
  }
  if (!has(Role::kNorm)) {
    missing.Add("norm.weight", 0, 0);
  }
}

}  // namespace

void WarnOfMissingWeights(const ModelConfig& config, LoadPlan& plan) {
  const LayerInventory inventory(plan.tensors);
  const auto [present, first_missing] = inventory.CountLayers(config.layer_count);
  if (present < config.layer_count) {
    plan.warnings.push_back(absl::StrCat("the checkpoint lacks ", config.layer_count - present,
                                         " of ", config.layer_count, " layers, the first is layer ",
                                         first_missing));
  }
  Missing missing;
  CheckEnds(plan.tensors, missing);
  inventory.CheckLayers(config, missing);
  if (missing.count > 0) {
    const auto named = static_cast<int64_t>(missing.names.size());
    plan.warnings.push_back(absl::StrCat("the checkpoint lacks ", missing.count,
                                         missing.count == 1 ? " weight that " : " weights that ",
                                         config.model_type,
                                         " models have: ", absl::StrJoin(missing.names, ", "),
                                         missing.count > named ? " and more" : ""));
  }
}

}  // namespace nibble
