#include "tests/support/tiny_checkpoint.h"

#include <stdlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr float kWeightDeviation = 0.02f;  // initializer_range of most models.

uint16_t ToBf16(float value) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16); }

// Truncates; `value` is 0 or a normal number of both types.
uint16_t ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 127 + 15;
  if (exponent <= 0) {
    return sign;
  }
  return static_cast<uint16_t>(sign | exponent << 10 | (bits >> 13 & 0x3FF));
}

template <typename T>
void Append(std::string& data, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  data.append(bytes, sizeof(T));
}

int64_t ElementCount(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    count *= dimension;
  }
  return count;
}

std::string DataOf(const TinyTensor& tensor, uint32_t seed) {
  return tensor.data.empty() ? SeededData(tensor.dtype, ElementCount(tensor.shape), seed)
                             : tensor.data;
}

std::string IndexJson(const TinyCheckpoint& checkpoint, int64_t total_bytes) {
  std::map<std::string, std::string> weight_map;
  for (const TinyTensor& tensor : checkpoint.tensors) {
    weight_map[tensor.name] = checkpoint.shard_file_name(tensor.shard_index);
  }
  for (const auto& [name, file_name] : checkpoint.index_overrides) {
    weight_map[name] = file_name;
  }
  std::string json =
      absl::StrCat("{\"metadata\":{\"total_size\":", total_bytes, "},\"weight_map\":{");
  absl::string_view separator;
  for (const auto& [name, file_name] : weight_map) {
    absl::StrAppend(&json, separator, Printable(name), ":", Printable(file_name));
    separator = ",";
  }
  return absl::StrCat(json, "}}");
}

}  // namespace

ScratchDirectory::ScratchDirectory() {
  std::string path = (std::filesystem::temp_directory_path() / "nibble-test-XXXXXX").string();
  Check(mkdtemp(path.data()) != nullptr, "a scratch directory can be made");
  path_ = path;
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  Check(file.good(), "a test file can be read");
  return content.str();
}

void WriteFile(const std::filesystem::path& path, absl::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  Check(file.good(), "a test file can be written");
}

void TruncateFile(const std::filesystem::path& path, int64_t bytes_removed) {
  std::filesystem::resize_file(
      path, std::filesystem::file_size(path) - static_cast<uintmax_t>(bytes_removed));
}

void OverwriteFile(const std::filesystem::path& path, int64_t offset, absl::string_view bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(offset);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  Check(file.good(), "a test file can be changed");
}

void ReplaceInFile(const std::filesystem::path& path, absl::string_view from,
                   absl::string_view to) {
  const size_t at = ReadFile(path).find(std::string(from));
  Check(at != std::string::npos && from.size() == to.size(), "the text to replace is there");
  OverwriteFile(path, static_cast<int64_t>(at), to);
}

std::string SafetensorsFile(absl::string_view header_json, absl::string_view data) {
  std::string file;
  Append(file, static_cast<uint64_t>(header_json.size()));
  return absl::StrCat(file, header_json, data);
}

std::string SeededData(Dtype dtype, int64_t element_count, uint32_t seed) {
  if (!AsFloatType(dtype).has_value()) {
    return std::string(static_cast<size_t>(element_count * DtypeBits(dtype) / 8), '\0');
  }
  std::minstd_rand random(seed + 1);
  std::string data;
  for (int64_t i = 0; i < element_count; ++i) {
    // The sum of four uniform numbers in [-1, 1] has a variance of 4/3.
    float sum = 0;
    for (int k = 0; k < 4; ++k) {
      sum += static_cast<float>(random()) / static_cast<float>(random.max()) * 2 - 1;
    }
    const float value = sum * kWeightDeviation * 0.866f;
    switch (dtype) {
      case Dtype::kF32:
        Append(data, value);
        break;
      case Dtype::kF16:
        Append(data, ToF16(value));
        break;
      default:
        Append(data, ToBf16(value));
    }
  }
  return data;
}

TinyCheckpoint& TinyCheckpoint::Add(std::string name, std::vector<int64_t> shape, Dtype dtype,
                                    std::string data, int shard_index) {
  tensors.push_back({.name = std::move(name),
                     .dtype = dtype,
                     .shape = std::move(shape),
                     .data = std::move(data),
                     .shard_index = shard_index});
  return *this;
}

int TinyCheckpoint::shard_count() const {
  int count = 1;
  for (const TinyTensor& tensor : tensors) {
    count = std::max(count, tensor.shard_index + 1);
  }
  return count;
}

std::string TinyCheckpoint::shard_file_name(int shard_index) const {
  if (shard_count() == 1) {
    return "model.safetensors";
  }
  return absl::StrFormat("model-%05d-of-%05d.safetensors", shard_index + 1, shard_count());
}

void TinyCheckpoint::Write(const std::filesystem::path& directory) const {
  std::filesystem::create_directories(directory);
  if (!config_json.empty()) {
    WriteFile(directory / "config.json", config_json);
  }
  int64_t total_bytes = 0;
  for (int shard = 0; shard < shard_count(); ++shard) {
    std::vector<SafetensorsEntry> entries;
    std::string data;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TinyTensor& tensor = tensors[i];
      if (tensor.shard_index == shard) {
        const std::string bytes = DataOf(tensor, static_cast<uint32_t>(i));
        entries.push_back({.name = tensor.name,
                           .dtype = tensor.dtype,
                           .shape = tensor.shape,
                           .bytes = static_cast<int64_t>(bytes.size())});
        data += bytes;
      }
    }
    total_bytes += static_cast<int64_t>(data.size());
    WriteFile(directory / shard_file_name(shard),
              absl::StrCat(WriteSafetensorsHeader(entries, {{"format", "pt"}}), data));
  }
  if ((shard_count() > 1 && write_index) || !index_overrides.empty()) {
    WriteFile(directory / "model.safetensors.index.json", IndexJson(*this, total_bytes));
  }
}

TinyCheckpoint TinyLlama(const TinyLlamaShape& shape) {
  const int64_t head_size = shape.hidden_size / shape.head_count;
  const int64_t key_value_size = shape.key_value_head_count * head_size;
  TinyCheckpoint checkpoint;
  checkpoint.config_json =
      absl::StrCat(R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":)",
                   shape.hidden_size, R"(,"intermediate_size":)", shape.intermediate_size,
                   R"(,"num_hidden_layers":)", shape.layer_count, R"(,"num_attention_heads":)",
                   shape.head_count, R"(,"num_key_value_heads":)", shape.key_value_head_count,
                   R"(,"vocab_size":)", shape.vocabulary_size, R"(,"max_position_embeddings":512)",
                   R"(,"tie_word_embeddings":)", shape.tied_embeddings ? "true" : "false", "}");
  const auto add = [&checkpoint, &shape](std::string name, std::vector<int64_t> dimensions) {
    checkpoint.Add(std::move(name), std::move(dimensions), shape.dtype);
  };
  add("model.embed_tokens.weight", {shape.vocabulary_size, shape.hidden_size});
  for (int64_t layer = 0; layer < shape.layer_count; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    add(prefix + "input_layernorm.weight", {shape.hidden_size});
    add(prefix + "self_attn.q_proj.weight", {shape.hidden_size, shape.hidden_size});
    add(prefix + "self_attn.k_proj.weight", {key_value_size, shape.hidden_size});
    add(prefix + "self_attn.v_proj.weight", {key_value_size, shape.hidden_size});
    add(prefix + "self_attn.o_proj.weight", {shape.hidden_size, shape.hidden_size});
    add(prefix + "post_attention_layernorm.weight", {shape.hidden_size});
    add(prefix + "mlp.gate_proj.weight", {shape.intermediate_size, shape.hidden_size});
    add(prefix + "mlp.up_proj.weight", {shape.intermediate_size, shape.hidden_size});
    add(prefix + "mlp.down_proj.weight", {shape.hidden_size, shape.intermediate_size});
  }
  add("model.norm.weight", {shape.hidden_size});
  if (!shape.tied_embeddings) {
    add("lm_head.weight", {shape.vocabulary_size, shape.hidden_size});
  }
  const auto count = static_cast<int>(checkpoint.tensors.size());
  for (int i = 0; i < count; ++i) {
    checkpoint.tensors[static_cast<size_t>(i)].shard_index = i * shape.shard_count / count;
  }
  return checkpoint;
}

}  // namespace nibble
