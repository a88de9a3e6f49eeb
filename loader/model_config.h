// config.json: what of it decides how a checkpoint is planned. (What only the forward pass needs is
// added with the engine.)

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

inline constexpr int64_t kConfigBytesMax = int64_t{16} << 20;

// Counts and sizes are 0 where neither the file nor the family's config class in transformers says.
// Those of a vision-language model are those of its nested text_config.
struct ModelConfig {
  std::string model_type;    // Of the text model: "llama", "qwen3_5_moe_text".
  std::string architecture;  // "LlamaForCausalLM"; empty if the file has none.
  bool nested = false;       // Read from the text_config of a vision-language model.
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layer_count = 0;
  int64_t head_count = 0;
  int64_t key_value_head_count = 0;
  int64_t head_size = 0;  // head_dim, or hidden_size / head_count, or the family's default.
  int64_t vocabulary_size = 0;
  int64_t context_tokens_max = 0;
  int64_t expert_count = 0;
  int64_t expert_intermediate_size = 0;
  int64_t shared_expert_intermediate_size = 0;
  int64_t linear_key_head_count = 0;  // Gated DeltaNet.
  int64_t linear_value_head_count = 0;
  int64_t linear_key_head_size = 0;
  int64_t linear_value_head_size = 0;
  int64_t linear_conv_kernel_size = 0;
  bool tied_embeddings = false;
  // quantization_config.quant_method; empty if there is none. bitsandbytes means its 4 bits; its 8
  // bits are "bitsandbytes_8bit", as transformers calls them.
  std::string quantization_method;
  // quantization_config.weight_block_size of "fp8": how many rows and columns share a scale. 0
  // where the file says null: a tensor or a row has one.
  int64_t f8_block_rows = 0;
  int64_t f8_block_columns = 0;
};

// Errors: DATA_LOSS for malformed JSON (limits: kConfigBytesMax, depth 64), a key that stands
// twice,
//   a missing model_type, or a number that is negative, fractional or absurd, naming `file_name`
//   and the key.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view file_name, absl::string_view json);

}  // namespace nibble
