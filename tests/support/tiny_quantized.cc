#include "tests/support/tiny_quantized.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"

namespace nibble {
namespace {

// formats.md's tables, not the code's.
const std::vector<float> kNf4Map = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};
const std::vector<float> kFp4Map = {
    0.0f, 0.005208333f,  0.6666667f,  1.0f,  0.33333334f,  0.5f,  0.16666667f,  0.25f,
    0.0f, -0.005208333f, -0.6666667f, -1.0f, -0.33333334f, -0.5f, -0.16666667f, -0.25f,
};

std::vector<float> ScaleMapValues() {
  std::vector<float> values(256);
  for (size_t code = 0; code < values.size(); ++code) {
    values[code] = (static_cast<float>(code) - 127) / 128;
  }
  return values;
}

}  // namespace

std::string FloatBytes(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

std::string QuantStateJson(const TinyQuantized& quantized) {
  const std::string nested =
      quantized.double_quantized
          ? absl::StrCat(R"(, "nested_blocksize": 256, "nested_dtype": "float32", )",
                         R"("nested_offset": )", quantized.mean)
          : "";
  return absl::StrCat(R"({"quant_type": ")", quantized.type, R"(", "blocksize": )",
                      quantized.block_size, R"(, "dtype": ")", quantized.dtype, R"(", "shape": [)",
                      absl::StrJoin(quantized.shape, ", "), "]", nested, "}");
}

void AddQuantized(const TinyQuantized& quantized, TinyCheckpoint& checkpoint) {
  int64_t elements = 1;
  for (const int64_t dimension : quantized.shape) {
    elements *= dimension;
  }
  const int64_t code_bytes = (elements + 1) / 2;
  const int64_t storage_bytes = DtypeBits(quantized.storage) / 8;
  const int64_t stored = (code_bytes + storage_bytes - 1) / storage_bytes;
  const int64_t blocks = (elements + quantized.block_size - 1) / quantized.block_size;
  checkpoint.Add(quantized.name, {stored, 1}, quantized.storage,
                 std::string(static_cast<size_t>(stored * storage_bytes), '\0'),
                 quantized.shard_index);
  const auto add = [&quantized, &checkpoint](const char* suffix, int64_t count, Dtype dtype,
                                             std::string data = "") {
    checkpoint.Add(quantized.name + suffix, {count}, dtype, std::move(data),
                   quantized.side_shard_index);
  };
  add(".absmax", blocks, quantized.double_quantized ? Dtype::kU8 : Dtype::kF32);
  add(".quant_map", 16, Dtype::kF32, FloatBytes(quantized.type == "fp4" ? kFp4Map : kNf4Map));
  if (quantized.double_quantized) {
    add(".nested_absmax", (blocks + 255) / 256, Dtype::kF32);
    add(".nested_quant_map", 256, Dtype::kF32, FloatBytes(ScaleMapValues()));
  }
  const std::string json = QuantStateJson(quantized);
  const std::string suffix = absl::StrCat(".quant_state.bitsandbytes__", quantized.type);
  add(suffix.c_str(), static_cast<int64_t>(json.size()), Dtype::kU8, json);
}

TinyTensor& TensorNamed(absl::string_view name, TinyCheckpoint& checkpoint) {
  const auto found = std::find_if(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                                  [name](const TinyTensor& tensor) { return tensor.name == name; });
  Check(found != checkpoint.tensors.end(), "the tensor is there");
  return *found;
}

void RemoveTensor(absl::string_view name, TinyCheckpoint& checkpoint) {
  const TinyTensor* const tensor = &TensorNamed(name, checkpoint);
  checkpoint.tensors.erase(checkpoint.tensors.begin() + (tensor - checkpoint.tensors.data()));
}

}  // namespace nibble
