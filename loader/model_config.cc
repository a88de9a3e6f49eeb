#include "loader/model_config.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/bytes.h"
#include "loader/json_reader.h"
#include "loader/name_map.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr int kConfigDepthMax = 64;

// Far beyond any model, and small enough that 2 * a * b fits in 63 bits for any two sizes.
constexpr uint64_t kSizeMax = uint64_t{1} << 30;
constexpr uint64_t kCountMax = 65'536;  // Layers, heads, experts.
constexpr uint64_t kTokensMax = uint64_t{1} << 40;

// What transformers' FineGrainedFP8Config takes where the file does not say.
constexpr int64_t kF8BlockSizeDefault = 128;

using Member = int64_t ModelConfig::*;

struct NumberKey {
  absl::string_view key;
  Member member;
  uint64_t min;
  uint64_t max;
};

// Of several keys for one member the first that is there counts: newer and older names, and those
// of other families, which the generic rule may meet.
constexpr NumberKey kNumberKeys[] = {
    {"hidden_size", &ModelConfig::hidden_size, 1, kSizeMax},
    {"n_embd", &ModelConfig::hidden_size, 1, kSizeMax},
    {"d_model", &ModelConfig::hidden_size, 1, kSizeMax},
    {"intermediate_size", &ModelConfig::intermediate_size, 0, kSizeMax},
    {"num_hidden_layers", &ModelConfig::layer_count, 1, kCountMax},
    {"n_layer", &ModelConfig::layer_count, 1, kCountMax},
    {"num_attention_heads", &ModelConfig::head_count, 1, kCountMax},
    {"n_head", &ModelConfig::head_count, 1, kCountMax},
    {"num_key_value_heads", &ModelConfig::key_value_head_count, 1, kCountMax},
    {"head_dim", &ModelConfig::head_size, 1, kSizeMax},
    {"vocab_size", &ModelConfig::vocabulary_size, 1, kSizeMax},
    {"max_position_embeddings", &ModelConfig::context_tokens_max, 0, kTokensMax},
    {"n_positions", &ModelConfig::context_tokens_max, 0, kTokensMax},
    {"num_experts", &ModelConfig::expert_count, 0, kCountMax},
    {"num_local_experts", &ModelConfig::expert_count, 0, kCountMax},
    {"n_routed_experts", &ModelConfig::expert_count, 0, kCountMax},
    {"moe_intermediate_size", &ModelConfig::expert_intermediate_size, 0, kSizeMax},
    {"shared_expert_intermediate_size", &ModelConfig::shared_expert_intermediate_size, 0, kSizeMax},
    {"linear_num_key_heads", &ModelConfig::linear_key_head_count, 0, kCountMax},
    {"linear_num_value_heads", &ModelConfig::linear_value_head_count, 0, kCountMax},
    {"linear_key_head_dim", &ModelConfig::linear_key_head_size, 0, kSizeMax},
    {"linear_value_head_dim", &ModelConfig::linear_value_head_size, 0, kSizeMax},
    {"linear_conv_kernel_dim", &ModelConfig::linear_conv_kernel_size, 0, kSizeMax},
};
constexpr size_t kNumberKeyCount = std::size(kNumberKeys);

// What transformers' config classes take where the file says nothing and hidden_size / head_count,
// respectively head_count, is not it. Hub files leave these out (Gemma-3-4B has no head_dim).
struct FamilyDefaults {
  absl::string_view model_type;
  int64_t head_size;  // 0: hidden_size / head_count.
  int64_t
      key_value_head_count;  // 0: head_count; kUnknown: a file that says nothing is not trusted.
  bool tied_embeddings;
  int64_t head_count = 0;  // 0: the file says.
  int64_t vocabulary_size = 0;
};
constexpr int64_t kUnknown = -1;

// Source: huggingface/transformers, models/*/configuration_*.py.
constexpr FamilyDefaults kFamilyDefaults[] = {
    {"llama", 0, 0, false},
    {"mistral", 0, kUnknown, false},
    {"qwen2", 0, kUnknown, false},
    {"qwen3", 128, kUnknown, false},
    {"qwen3_moe", 0, kUnknown, false},
    {"mixtral", 0, kUnknown, false},
    {"qwen3_5", 256, kUnknown, false},
    {"qwen3_5_text", 256, kUnknown, false},
    {"qwen3_5_moe", 256, kUnknown, false},
    {"qwen3_5_moe_text", 256, kUnknown, false},
    {"seed_oss", 128, kUnknown, false},
    {"gemma2", 256, kUnknown, true},
    {"gemma3", 256, 4, true, 8, 262'208},
    {"gemma3_text", 256, 4, true, 8, 262'208},
    {"cohere", 0, 0, true},
};

FamilyDefaults DefaultsOf(absl::string_view model_type) {
  for (const FamilyDefaults& defaults : kFamilyDefaults) {
    if (defaults.model_type == model_type) {
      return defaults;
    }
  }
  // Heads of a model we do not know may be anything; a head that is tied is not in the file anyway.
  return {model_type, 0, kUnknown, false};
}

struct QuantizationLevel {
  std::string method;
  int64_t f8_block_rows = kF8BlockSizeDefault;
  int64_t f8_block_columns = kF8BlockSizeDefault;
};

// What one object of the file, the outermost or its text_config, says. Null counts as nothing.
struct ConfigLevel {
  std::string model_type;
  std::string architecture;
  std::array<std::optional<int64_t>, kNumberKeyCount> numbers;
  std::optional<bool> tied_embeddings;
  QuantizationLevel quantization;
};

class ConfigParser {
 public:
  explicit ConfigParser(absl::string_view json)
      : reader_(json, {.depth_max = kConfigDepthMax, .allow_nan_and_infinity = true}) {}

  // Errors: DATA_LOSS that names the key, not the file.
  absl::Status Parse() {
    ParseLevel(outer_, "");
    reader_.Finish();
    return reader_.status().ok()
               ? absl::OkStatus()
               : absl::DataLossError(absl::StrCat(place_, reader_.status().message()));
  }

  const ConfigLevel& outer() const { return outer_; }
  const std::optional<ConfigLevel>& text() const { return text_; }

 private:
  // `prefix` is that of the level's keys in messages.
  void ParseLevel(ConfigLevel& level, absl::string_view prefix) {
    NameSet seen;
    std::string key;
    reader_.EnterObject();
    while (NextKey(prefix, seen, key)) {
      if (prefix.empty() && key == "text_config" && Peek() == JsonReader::Kind::kObject) {
        ParseLevel(text_.emplace(), "text_config.");
      } else {
        ParseMember(level, prefix, key);
      }
      if (!reader_.status().ok()) {
        return;
      }
    }
  }

  // False at the end of the object and if a key stands twice.
  bool NextKey(absl::string_view prefix, NameSet& seen, std::string& key) {
    place_ = "";
    if (!reader_.NextMember(key)) {
      return false;
    }
    place_ = absl::StrCat(prefix, IsPlainFileName(key) ? key : Printable(key), ": ");
    return seen.insert(key).second || reader_.Refuse("the key stands twice");
  }

  JsonReader::Kind Peek() { return reader_.Peek(); }

  void ParseMember(ConfigLevel& level, absl::string_view prefix, const std::string& key) {
    const JsonReader::Kind kind = Peek();
    if (kind == JsonReader::Kind::kNull) {
      reader_.SkipValue();
    } else if (key == "model_type") {
      reader_.ReadString(level.model_type);
      RefuseControlCharacters(level.model_type);
    } else if (key == "architectures") {
      ParseArchitectures(level.architecture);
    } else if (key == "tie_word_embeddings") {
      reader_.ReadBool(level.tied_embeddings.emplace());
    } else if (key == "quantization_config" || key == "compression_config") {
      ParseQuantization(absl::StrCat(prefix, key), level.quantization);
    } else {
      ParseNumber(key, kind, level);
    }
  }

  void RefuseControlCharacters(absl::string_view text) {
    if (HasControlCharacters(text)) {
      reader_.Refuse(absl::StrCat("expected no control characters, found ", Printable(text)));
    }
  }

  void ParseArchitectures(std::string& first) {
    std::string name;
    reader_.EnterArray();
    while (reader_.NextElement()) {
      reader_.ReadString(name);
      RefuseControlCharacters(name);
      first = first.empty() ? name : first;
    }
  }

  void ParseNumber(absl::string_view key, JsonReader::Kind kind, ConfigLevel& level) {
    for (size_t i = 0; i < kNumberKeyCount; ++i) {
      const NumberKey& number = kNumberKeys[i];
      // A list says that layers differ, which the generic rule need not know.
      if (number.key != key || kind == JsonReader::Kind::kArray) {
        continue;
      }
      uint64_t value = 0;
      if (!reader_.ReadUnsigned(value)) {
        return;
      }
      if (value < number.min || value > number.max) {
        reader_.Refuse(
            absl::StrCat("expected ", number.min, " to ", number.max, ", found ", value));
        return;
      }
      level.numbers[i] = static_cast<int64_t>(value);
      return;
    }
    reader_.SkipValue();
  }

  void ParseQuantization(const std::string& place, QuantizationLevel& quantization) {
    std::string& method = quantization.method;
    const std::string prefix = absl::StrCat(place, ".");
    NameSet seen;
    std::string key;
    bool in_4_bits = false;
    bool in_8_bits = false;
    reader_.EnterObject();
    while (NextKey(prefix, seen, key)) {
      if (key == "quant_method") {
        reader_.ReadString(method);
      } else if (key == "load_in_4bit" && Peek() == JsonReader::Kind::kBool) {
        reader_.ReadBool(in_4_bits);
      } else if (key == "load_in_8bit" && Peek() == JsonReader::Kind::kBool) {
        reader_.ReadBool(in_8_bits);
      } else if (key == "weight_block_size") {
        ParseF8BlockSize(quantization);
      } else {
        reader_.SkipValue();
      }
      if (!reader_.status().ok()) {
        return;
      }
    }
    // Files of before 2023-09 name no method, bitsandbytes was the only one.
    method = method.empty() && (in_4_bits || in_8_bits) ? "bitsandbytes" : method;
    if (method == "bitsandbytes" && in_8_bits) {
      method = "bitsandbytes_8bit";
    }
    if (method.empty()) {
      place_ = absl::StrCat(place, ": ");
      reader_.Refuse("expected quant_method, found none");
    }
  }

  // [rows, columns], or null for a scale of a tensor or a row.
  void ParseF8BlockSize(QuantizationLevel& quantization) {
    if (Peek() == JsonReader::Kind::kNull) {
      reader_.SkipValue();
      quantization.f8_block_rows = 0;
      quantization.f8_block_columns = 0;
      return;
    }
    std::array<uint64_t, 2> sizes = {};
    size_t count = 0;
    reader_.EnterArray();
    while (reader_.NextElement()) {
      uint64_t size = 0;
      if (!reader_.ReadUnsigned(size)) {
        return;
      }
      if (count < sizes.size()) {
        sizes[count] = size;
      }
      ++count;
    }
    const auto [rows, columns] = sizes;
    if (reader_.status().ok() && (count != sizes.size() || rows < 1 || rows > kSizeMax ||
                                  columns < 1 || columns > kSizeMax)) {
      reader_.Refuse(absl::StrCat("expected [rows, columns], each from 1 to ", kSizeMax));
      return;
    }
    quantization.f8_block_rows = static_cast<int64_t>(rows);
    quantization.f8_block_columns = static_cast<int64_t>(columns);
  }

  JsonReader reader_;
  std::string place_;  // Of the value being read, for messages: "text_config.hidden_size: ".
  ConfigLevel outer_;
  std::optional<ConfigLevel> text_;
};

// Whether the text model's sizes are those of the nested text_config.
bool IsNested(const ConfigLevel& outer, const std::optional<ConfigLevel>& text) {
  const bool known = outer.model_type == "qwen3_5" || outer.model_type == "qwen3_5_moe" ||
                     outer.model_type == "gemma3";
  return text.has_value() && (known || !outer.numbers[0].has_value());
}

void FillNumbers(const ConfigLevel& level, ModelConfig& config) {
  std::array<bool, kNumberKeyCount> ignored = {};
  for (size_t i = 0; i < kNumberKeyCount; ++i) {
    if (!level.numbers[i].has_value() || ignored[i]) {
      continue;
    }
    config.*kNumberKeys[i].member = *level.numbers[i];
    for (size_t later = i + 1; later < kNumberKeyCount; ++later) {
      ignored[later] = ignored[later] || kNumberKeys[later].member == kNumberKeys[i].member;
    }
  }
}

void FillDefaults(ModelConfig& config) {
  const FamilyDefaults defaults = DefaultsOf(config.model_type);
  const auto fill = [](int64_t& value, int64_t fallback) { value = value == 0 ? fallback : value; };
  fill(config.head_count, defaults.head_count);
  fill(config.vocabulary_size, defaults.vocabulary_size);
  fill(config.head_size, defaults.head_size);
  if (config.head_size == 0 && config.head_count > 0 &&
      config.hidden_size % config.head_count == 0) {
    config.head_size = config.hidden_size / config.head_count;
  }
  if (defaults.key_value_head_count != kUnknown) {
    fill(config.key_value_head_count, defaults.key_value_head_count);
    fill(config.key_value_head_count, config.head_count);
  }
  if (config.model_type == "mixtral") {
    fill(config.expert_intermediate_size, config.intermediate_size);
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view file_name, absl::string_view json) {
  const auto refuse = [file_name](auto&&... message) {
    return absl::DataLossError(absl::StrCat(file_name, ": ", message...));
  };
  if (static_cast<int64_t>(json.size()) > kConfigBytesMax) {
    return refuse("expected at most ", kConfigBytesMax, " bytes, found ", json.size());
  }
  ConfigParser parser(json);
  if (const absl::Status status = parser.Parse(); !status.ok()) {
    return refuse(status.message());
  }
  const ConfigLevel& outer = parser.outer();
  if (outer.model_type.empty()) {
    return refuse("expected model_type, found none");
  }
  ModelConfig config;
  config.nested = IsNested(outer, parser.text());
  const ConfigLevel& level = config.nested ? *parser.text() : outer;
  config.model_type = level.model_type.empty() ? outer.model_type : level.model_type;
  config.architecture = outer.architecture.empty() ? level.architecture : outer.architecture;
  const QuantizationLevel& quantization =
      outer.quantization.method.empty() ? level.quantization : outer.quantization;
  config.quantization_method = quantization.method;
  if (config.quantization_method == "fp8") {
    config.f8_block_rows = quantization.f8_block_rows;
    config.f8_block_columns = quantization.f8_block_columns;
  }
  config.tied_embeddings = level.tied_embeddings.value_or(
      outer.tied_embeddings.value_or(DefaultsOf(config.model_type).tied_embeddings));
  FillNumbers(level, config);
  FillDefaults(config);
  return config;
}

}  // namespace nibble
