// Tensors in 4 bits for a TinyCheckpoint, as bitsandbytes writes them, and ways to break them.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {

struct TinyQuantized {
  std::string name = "model.layers.0.self_attn.q_proj.weight";
  std::vector<int64_t> shape = {64, 64};
  std::string type = "nf4";  // Or fp4.
  int64_t block_size = 64;
  bool double_quantized = false;
  std::string mean = "0.25";  // "nested_offset", as JSON.
  std::string dtype = "bfloat16";
  Dtype storage = Dtype::kU8;  // Of the codes.
  int shard_index = 0;         // Of the codes.
  int side_shard_index = 0;    // Of all the rest.
};

// The JSON of the quant_state, spaced as Python does.
std::string QuantStateJson(const TinyQuantized& quantized);

// Adds codes (zeros) and side tensors to `checkpoint`.
void AddQuantized(const TinyQuantized& quantized, TinyCheckpoint& checkpoint);

// Ends the test process if there is none.
TinyTensor& TensorNamed(absl::string_view name, TinyCheckpoint& checkpoint);
void RemoveTensor(absl::string_view name, TinyCheckpoint& checkpoint);

// Little-endian fp32.
std::string FloatBytes(const std::vector<float>& values);

}  // namespace nibble
