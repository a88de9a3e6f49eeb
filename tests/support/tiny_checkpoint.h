// Small checkpoints on disk, made in a few lines and broken in one: what the tests of the loader
// and of the layers above read.

#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "loader/safetensors.h"

namespace nibble {

// An empty directory that is removed with everything in it on destruction.
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Whole files; any failure ends the test process.
std::string ReadFile(const std::filesystem::path& path);
void WriteFile(const std::filesystem::path& path, absl::string_view content);

// For breaking files after they were written.
void TruncateFile(const std::filesystem::path& path, int64_t bytes_removed);
void OverwriteFile(const std::filesystem::path& path, int64_t offset, absl::string_view bytes);
// Requires: `from` occurs and `to` is as long.
void ReplaceInFile(const std::filesystem::path& path, absl::string_view from, absl::string_view to);

// A safetensors file of `header_json` and `data` as they are, right or wrong.
std::string SafetensorsFile(absl::string_view header_json, absl::string_view data);

struct TinyTensor {
  std::string name;
  Dtype dtype = Dtype::kBf16;
  std::vector<int64_t> shape;
  std::string data;  // Little-endian; empty: seeded values, see SeededData.
  int shard_index = 0;
};

// Elements of F32, F16 or BF16 that look like weights: roughly normal, standard deviation 0.02,
// finite, other for each seed. Zero bytes for other dtypes.
std::string SeededData(Dtype dtype, int64_t element_count, uint32_t seed);

// A checkpoint that Write() lays out as transformers does: one model.safetensors, or, with
// tensors in several shards, model-0000X-of-0000N.safetensors and an index.
struct TinyCheckpoint {
  std::string config_json = R"({"model_type":"llama"})";  // Empty: no config.json.
  std::vector<TinyTensor> tensors;
  bool write_index = true;                             // If there are several shards.
  std::map<std::string, std::string> index_overrides;  // Tensor name → what the index says.

  TinyCheckpoint& Add(std::string name, std::vector<int64_t> shape, Dtype dtype = Dtype::kBf16,
                      std::string data = "", int shard_index = 0);

  int shard_count() const;
  std::string shard_file_name(int shard_index) const;

  // Creates `directory` if need be.
  void Write(const std::filesystem::path& directory) const;
};

struct TinyLlamaShape {
  int64_t hidden_size = 64;
  int64_t intermediate_size = 128;
  int64_t layer_count = 2;
  int64_t head_count = 4;
  int64_t key_value_head_count = 2;
  int64_t vocabulary_size = 96;
  bool tied_embeddings = false;
  int shard_count = 1;  // Tensors are dealt out in order, evenly.
  Dtype dtype = Dtype::kBf16;
};

// Every tensor of a Llama and the config that fits it.
TinyCheckpoint TinyLlama(const TinyLlamaShape& shape = {});

}  // namespace nibble
