// A checkpoint whose tensors an input lists, one a line, in two shards. What opens must lie within
// its files and have the sizes that its shapes call for.
//
//   config TEXT                      the whole of config.json; without such a line it is a llama's
//   shard                            what follows is in the second shard
//   DTYPE NAME DIM,DIM,... TEXT      a tensor; its data begins with TEXT, then zeros
//   DTYPE NAME scalar TEXT           likewise, without a dimension
//   DTYPE NAME TEXT                  a vector of bytes, as long as TEXT
//
// TEXT may also be the word nf4, fp4 or map: the values of a quant_map or a nested_quant_map.

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/check.h"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "loader/checkpoint.h"
#include "loader/printable.h"
#include "loader/safetensors.h"
#include "tests/support/memory_directory.h"

namespace nibble {
namespace {

constexpr int64_t kTensorBytesMax = 1 << 16;  // Of what the list asks for: so that a run is short.
constexpr int64_t kListBytesMax = 1 << 20;

struct ListedShard {
  std::vector<SafetensorsEntry> entries;
  std::string data;
};

struct Listed {
  std::string config = R"({"model_type":"llama"})";
  std::array<ListedShard, 2> shards;
  size_t shard_index = 0;
};

std::string DataOf(absl::string_view text) {
  const auto bytes = [](const auto& values) {
    return std::string(reinterpret_cast<const char*>(values.data()),
                       values.size() * sizeof(values[0]));
  };
  if (text == "nf4") {
    return bytes(kNf4Values);
  }
  if (text == "fp4") {
    return bytes(kFp4Values);
  }
  if (text == "map") {
    return bytes(std::vector<float>(256, 0.5f));
  }
  return std::string(text);
}

// The shape that `text` says, if it does, of at most kTensorBytesMax.
bool ParseShape(absl::string_view text, Dtype dtype, std::vector<int64_t>& shape, int64_t& bytes) {
  int64_t bits = DtypeBits(dtype);
  bytes = bits / 8;
  if (text == "scalar") {
    return bits % 8 == 0;
  }
  for (const absl::string_view word : absl::StrSplit(text, ',')) {
    int64_t dimension = 0;
    if (!absl::SimpleAtoi(word, &dimension) || dimension < 0 ||
        dimension > kTensorBytesMax * 8 / std::max<int64_t>(bits, 1)) {
      return false;
    }
    bits *= dimension;
    if (bits > kTensorBytesMax * 8) {
      return false;
    }
    shape.push_back(dimension);
  }
  bytes = bits / 8;
  return bits % 8 == 0;
}

void AddTensor(absl::string_view line, Listed& listed) {
  const std::vector<std::string> words = absl::StrSplit(line, absl::MaxSplits(' ', 2));
  if (words.size() < 3) {
    return;
  }
  const std::optional<Dtype> dtype = ParseDtype(words[0]);
  // The header is JSON, and must be; names that are not have the safetensors_header target.
  if (!dtype.has_value() || !IsUtf8(words[1])) {
    return;
  }
  SafetensorsEntry entry;
  entry.name = words[1];
  entry.dtype = *dtype;
  std::pair<std::string, std::string> rest = absl::StrSplit(words[2], absl::MaxSplits(' ', 1));
  std::string data;
  if (ParseShape(rest.first, *dtype, entry.shape, entry.bytes)) {
    data = DataOf(rest.second);
    data.resize(static_cast<size_t>(entry.bytes));
  } else if (DtypeBits(*dtype) == 8) {
    data = DataOf(words[2]);
    entry.bytes = static_cast<int64_t>(data.size());
    entry.shape = {entry.bytes};
  } else {
    return;
  }
  ListedShard& shard = listed.shards[listed.shard_index];
  if (static_cast<int64_t>(shard.data.size()) + entry.bytes <= kListBytesMax) {
    shard.entries.push_back(std::move(entry));
    shard.data += data;
  }
}

Listed ParseList(absl::string_view text) {
  Listed listed;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, "config ")) {
      listed.config = std::string(line.substr(7));
    } else if (line == "shard") {
      listed.shard_index = 1;
    } else {
      AddTensor(line, listed);
    }
  }
  return listed;
}

void CheckRange(const Checkpoint& checkpoint, const FileRange& range, int64_t bytes) {
  Check(range.shard_index >= 0 && static_cast<size_t>(range.shard_index) < checkpoint.shards.size(),
        "a range has a shard");
  const int64_t file_bytes =
      checkpoint.shards[static_cast<size_t>(range.shard_index)].identity.bytes;
  Check(range.offset >= 8 && range.bytes == bytes && range.bytes <= file_bytes - range.offset,
        "a range lies in its shard and is as long as it must be");
}

void CheckQuantized(const Checkpoint& checkpoint, const CheckpointTensor& tensor,
                    int64_t elements) {
  const StoredQuantization& stored = *tensor.quantization;
  Check(IsBlockSize(stored.block_size), "a block size");
  Check(tensor.bytes == CodeBytes(elements), "two codes a byte");
  const int64_t blocks = (elements + stored.block_size - 1) / stored.block_size;
  CheckRange(checkpoint, stored.scales, stored.double_quantized ? blocks : blocks * 4);
  if (stored.double_quantized) {
    CheckRange(checkpoint, stored.scale_maxima, (blocks + 255) / 256 * 4);
    Check(stored.scale_map_index >= 0 &&
              static_cast<size_t>(stored.scale_map_index) < checkpoint.scale_maps.size(),
          "a scale map is there");
  }
}

void CheckF8(const Checkpoint& checkpoint, const CheckpointTensor& tensor) {
  const StoredF8Scale& stored = *tensor.f8_scale;
  Check(stored.block_rows >= 1 && stored.block_columns >= 1, "blocks are not empty");
  const size_t rank = tensor.shape.size();
  Check(rank == 2 || rank == 3, "F8 tensors are matrices");
  const int64_t rows = tensor.shape[rank - 2];
  Check(rank == 2 || rows % stored.block_rows == 0, "a block is of one expert");
  const int64_t all_rows = rank == 3 ? tensor.shape[0] * rows : rows;
  const int64_t down = (all_rows + stored.block_rows - 1) / stored.block_rows;
  const int64_t across = (tensor.shape[rank - 1] + stored.block_columns - 1) / stored.block_columns;
  CheckRange(checkpoint, stored.scales, down * across * BytesPerElement(stored.scale_type));
}

void CheckCheckpoint(const Checkpoint& checkpoint, size_t listed_count) {
  Check(checkpoint.tensors.size() <= listed_count, "tensors only become fewer");
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    int64_t elements = 1;
    for (const int64_t dimension : tensor.shape) {
      Check(!__builtin_mul_overflow(elements, dimension, &elements), "nothing overflows");
    }
    CheckRange(checkpoint, {tensor.shard_index, tensor.file_offset, tensor.bytes}, tensor.bytes);
    Check(!absl::StrContains(tensor.name, ".quant_state.bitsandbytes__"), "no sides are left");
    const bool in_f8 = tensor.dtype == Dtype::kF8E4M3 || tensor.dtype == Dtype::kF8E5M2;
    Check(in_f8 == tensor.f8_scale.has_value(), "F8 has scales");
    if (tensor.quantization.has_value()) {
      CheckQuantized(checkpoint, tensor, elements);
    } else if (in_f8) {
      CheckF8(checkpoint, tensor);
    } else {
      Check(elements * DtypeBits(tensor.dtype) == tensor.bytes * 8, "shape and size agree");
    }
  }
}

void CheckList(absl::string_view text) {
  Listed listed = ParseList(text);
  std::map<std::string, std::string> files = {{"config.json", listed.config}};
  size_t count = 0;
  for (size_t index = 0; index < listed.shards.size(); ++index) {
    const ListedShard& shard = listed.shards[index];
    count += shard.entries.size();
    files[absl::StrCat("model-0000", index + 1, "-of-00002.safetensors")] =
        WriteSafetensorsHeader(shard.entries, {}) + shard.data;
  }
  const auto checkpoint = OpenCheckpoint(std::make_shared<MemoryDirectory>(std::move(files)));
  if (!checkpoint.ok()) {
    const absl::string_view message = checkpoint.status().message();
    Check(IsUtf8(message) && !HasControlCharacters(message), "messages are printable");
    return;
  }
  CheckCheckpoint(*checkpoint, count);
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  nibble::CheckList({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
