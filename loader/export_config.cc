#include "loader/export_config.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "loader/exported_tensor.h"
#include "loader/json_reader.h"
#include "loader/python_json.h"
#include "loader/quant_state.h"

namespace nibble {
namespace {

constexpr absl::string_view kQuantizationKey = "quantization_config";
constexpr absl::string_view kTextKey = "text_config";
constexpr absl::string_view kHeadModule = "lm_head";

// A member of the config: its key, and its value as the file has it.
struct Member {
  std::string key;
  std::string text;
};
using Members = std::vector<Member>;

Member* Find(Members& members, absl::string_view key) {
  const auto found = std::find_if(members.begin(), members.end(),
                                  [key](const Member& member) { return member.key == key; });
  return found == members.end() ? nullptr : &*found;
}

void Set(Members& members, absl::string_view key, std::string text) {
  if (Member* const member = Find(members, key); member != nullptr) {
    member->text = std::move(text);
  } else {
    members.push_back({std::string(key), std::move(text)});
  }
}

absl::StatusOr<Members> ReadMembers(absl::string_view json) {
  JsonReader reader(json, {.allow_nan_and_infinity = true});
  Members members;
  reader.EnterObject();
  std::string key;
  while (reader.NextMember(key)) {
    absl::string_view text;
    reader.ReadText(text);
    members.push_back({key, std::string(text)});
  }
  reader.Finish();
  if (!reader.status().ok()) {
    return absl::DataLossError(absl::StrCat("config.json: ", reader.status().message()));
  }
  return members;
}

std::string Quoted(absl::string_view text) {
  std::string json;
  AppendJsonString(json, text);
  return json;
}

// The text model's members, with what is said of it outside.
absl::StatusOr<Members> ReadTextMembers(Members outer, const ModelConfig& config) {
  constexpr std::array<absl::string_view, 7> kOfBoth = {
      "dtype",        "torch_dtype",  "tie_word_embeddings", "bos_token_id",
      "eos_token_id", "pad_token_id", "transformers_version"};
  Member* const text = Find(outer, kTextKey);
  if (text == nullptr) {
    return absl::DataLossError("config.json: expected a text_config, found none");
  }
  absl::StatusOr<Members> members = ReadMembers(text->text);
  if (!members.ok()) {
    return members;
  }
  for (const absl::string_view key : kOfBoth) {
    Member* const member = Find(outer, key);
    if (member != nullptr && Find(*members, key) == nullptr) {
      members->push_back(std::move(*member));
    }
  }
  const TextClass text_class = FindTextClass(config.model_type).value();
  Set(*members, "architectures", absl::StrCat("[\n    ", Quoted(text_class.architecture), "\n  ]"));
  Set(*members, "model_type", Quoted(text_class.model_type));
  return members;
}

// "bfloat16", if the config says in which type it is to be computed.
std::string ComputeDtype(Members& members, absl::string_view fallback) {
  for (const absl::string_view key : {"dtype", "torch_dtype"}) {
    Member* const member = Find(members, key);
    for (const absl::string_view known : {"bfloat16", "float16", "float32"}) {
      if (member != nullptr && member->text == Quoted(known)) {
        return std::string(known);
      }
    }
  }
  return std::string(fallback);
}

// The tensor in 4 bits that stands for most: one config describes them all, and each says for
// itself what it is.
const PlannedTensor& TypicalTensor(const LoadPlan& plan) {
  std::map<std::pair<Format, bool>, int64_t> elements;
  const PlannedTensor* typical = nullptr;
  int64_t most = -1;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.loaded || !tensor.quantized()) {
      continue;
    }
    int64_t& count = elements[{tensor.format, tensor.double_quantized}];
    for (const PlannedPart& part : tensor.parts) {
      count += part.element_count;
    }
    if (count > most) {
      most = count;
      typical = &tensor;
    }
  }
  return *typical;
}

// As transformers writes it: keys sorted.
std::string QuantizationText(const LoadPlan& plan, const std::vector<std::string>& kept_modules,
                             Members& members) {
  const PlannedTensor& typical = TypicalTensor(plan);
  const std::string kept =
      kept_modules.empty()
          ? "[]"
          : absl::StrCat("[\n      ",
                         absl::StrJoin(kept_modules, ",\n      ",
                                       [](std::string* text, const std::string& module) {
                                         AppendJsonString(*text, module);
                                       }),
                         "\n    ]");
  const Members values = {
      {"_load_in_4bit", "true"},
      {"_load_in_8bit", "false"},
      {"bnb_4bit_compute_dtype", Quoted(ComputeDtype(members, TorchDtypeName(typical)))},
      {"bnb_4bit_quant_storage", Quoted("uint8")},
      {"bnb_4bit_quant_type", Quoted(QuantTypeName(CodebookOf(typical.format)))},
      {"bnb_4bit_use_double_quant", typical.double_quantized ? "true" : "false"},
      {"llm_int8_enable_fp32_cpu_offload", "false"},
      {"llm_int8_has_fp16_weight", "false"},
      {"llm_int8_skip_modules", kept},
      {"llm_int8_threshold", "6.0"},
      {"load_in_4bit", "true"},
      {"load_in_8bit", "false"},
      {"quant_method", Quoted("bitsandbytes")},
  };
  return absl::StrCat("{\n    ",
                      absl::StrJoin(values, ",\n    ",
                                    [](std::string* text, const Member& member) {
                                      absl::StrAppend(text, Quoted(member.key), ": ", member.text);
                                    }),
                      "\n  }");
}

// Whether transformers has, or may have, a linear layer for a kept tensor.
bool MayBeLinear(const PlannedTensor& tensor, absl::string_view name) {
  return tensor.weight.role != Role::kEmbedding && tensor.shape.size() == 2 &&
         absl::EndsWith(name, ".weight");
}

// "...mlp.experts" of "...mlp.experts.7.up_proj"; empty if it is no expert's.
absl::string_view ExpertsModule(absl::string_view module) {
  constexpr absl::string_view kExperts = ".experts";
  const size_t found = module.rfind(absl::StrCat(kExperts, "."));
  return found == module.npos ? "" : module.substr(0, found + kExperts.size());
}

}  // namespace

std::vector<std::string> KeptModules(const LoadPlan& plan, const ModelConfig& config) {
  struct Experts {
    bool all_kept = true;
    bool listed = false;
  };
  std::map<std::string, Experts, std::less<>> all_experts;  // By their parent.
  bool has_head = false;
  const auto for_each_layer = [&](auto&& visit) {
    for (const PlannedTensor& tensor : plan.tensors) {
      for (const ExportUnit& unit : tensor.loaded ? UnitsOf(tensor) : std::vector<ExportUnit>()) {
        const std::string name = ExportedName(config, unit);
        if (tensor.quantized() || MayBeLinear(tensor, name)) {
          visit(tensor, absl::StripSuffix(name, ".weight"));
        }
      }
    }
  };
  for_each_layer([&](const PlannedTensor& tensor, absl::string_view module) {
    has_head = has_head || tensor.weight.role == Role::kOutputHead;
    if (const absl::string_view parent = ExpertsModule(module); !parent.empty()) {
      Experts& experts = all_experts[std::string(parent)];
      experts.all_kept = experts.all_kept && !tensor.quantized();
    }
  });
  std::vector<std::string> modules;
  if (!has_head) {
    modules.emplace_back(kHeadModule);
  }
  for_each_layer([&](const PlannedTensor& tensor, absl::string_view module) {
    if (tensor.quantized()) {
      return;
    }
    const absl::string_view parent = ExpertsModule(module);
    const auto experts = all_experts.find(parent);
    if (experts == all_experts.end() || !experts->second.all_kept) {
      modules.emplace_back(module);
    } else if (!std::exchange(experts->second.listed, true)) {
      modules.emplace_back(parent);
    }
  });
  return modules;
}

absl::StatusOr<std::string> ExportedConfig(const LoadPlan& plan, const ModelConfig& config,
                                           absl::string_view config_json) {
  absl::StatusOr<Members> members = ReadMembers(config_json);
  if (members.ok() && config.nested) {
    members = ReadTextMembers(*std::move(members), config);
  }
  if (!members.ok()) {
    return members.status();
  }
  Set(*members, kQuantizationKey, QuantizationText(plan, KeptModules(plan, config), *members));
  std::string json = "{\n";
  absl::string_view separator = "  ";
  for (const Member& member : *members) {
    absl::StrAppend(&json, separator);
    AppendJsonString(json, member.key);
    absl::StrAppend(&json, ": ", member.text);
    separator = ",\n  ";
  }
  return json += "\n}\n";
}

}  // namespace nibble
