#include "loader/synthetic_checkpoint.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "loader/new_directory.h"
#include "loader/safetensors.h"
#include "loader/synthetic_shapes.h"
#include "loader/synthetic_tokenizer.h"
#include "loader/synthetic_values.h"

namespace nibble {
namespace {

constexpr int64_t kShardBytesMax = 5'000'000'000;  // As transformers cuts them.

int64_t TensorBytes(const SyntheticTensor& tensor) {
  return ElementCount(tensor) * DtypeBits(tensor.dtype) / 8;
}

int64_t DataBytes(const SyntheticModel& model) {
  int64_t bytes = 0;
  for (const SyntheticTensor& tensor : model.tensors) {
    bytes += TensorBytes(tensor);
  }
  return bytes;
}

// A shard: a run of the model's tensors.
struct Run {
  size_t first = 0;
  size_t count = 0;
};

std::vector<Run> CutShards(const std::vector<SyntheticTensor>& tensors) {
  std::vector<Run> shards(1);
  int64_t shard_bytes = 0;
  for (size_t index = 0; index < tensors.size(); ++index) {
    const int64_t bytes = TensorBytes(tensors[index]);
    if (shards.back().count > 0 && shard_bytes + bytes > kShardBytesMax) {
      shards.push_back({index, 0});
      shard_bytes = 0;
    }
    ++shards.back().count;
    shard_bytes += bytes;
  }
  return shards;
}

std::string ShardName(size_t index, size_t count) {
  return count == 1 ? "model.safetensors"
                    : absl::StrFormat("model-%05d-of-%05d.safetensors", index + 1, count);
}

// Writes one model. Belongs to one call.
class Writer {
 public:
  Writer(const SyntheticModel& model, const SyntheticOptions& options, NewDirectory& target,
         SyntheticProgress progress)
      : model_(model),
        options_(options),
        target_(target),
        progress_(progress),
        data_bytes_(DataBytes(model)),
        values_(options.seed) {}

  absl::Status Write() {
    const std::vector<Run> shards = CutShards(model_.tensors);
    for (size_t index = 0; index < shards.size(); ++index) {
      absl::Status status = WriteShard(shards[index], ShardName(index, shards.size()));
      if (!status.ok()) {
        return status;
      }
    }
    absl::Status status = target_.WriteText("config.json", model_.config_json);
    if (status.ok() && shards.size() > 1) {
      status = target_.WriteText("model.safetensors.index.json", IndexJson(shards));
    }
    if (status.ok()) {
      status = target_.WriteText("tokenizer.json", SyntheticTokenizerJson(model_.vocabulary_size));
    }
    if (status.ok()) {
      status = target_.WriteText("tokenizer_config.json", SyntheticTokenizerConfigJson());
    }
    return status;
  }

 private:
  absl::Status WriteShard(const Run& shard, const std::string& file_name) {
    std::vector<SafetensorsEntry> entries;
    int64_t shard_bytes = 0;
    for (size_t index = shard.first; index < shard.first + shard.count; ++index) {
      const SyntheticTensor& tensor = model_.tensors[index];
      entries.push_back({tensor.name, tensor.dtype, tensor.shape, 0, TensorBytes(tensor)});
      shard_bytes += TensorBytes(tensor);
    }
    absl::StatusOr<NewFile> file = target_.Create(file_name);
    if (!file.ok()) {
      return file.status();
    }
    absl::Status status = file->Append(WriteSafetensorsHeader(entries, {{"format", "pt"}}));
    if (status.ok()) {
      status = options_.sparse ? WriteHole(*file, shard_bytes) : WriteData(*file, shard);
    }
    return status.ok() ? file->Close() : status;
  }

  absl::Status WriteHole(NewFile& file, int64_t bytes) {
    absl::Status status = file.AppendHole(bytes);
    return status.ok() ? Count(bytes) : status;
  }

  absl::Status WriteData(NewFile& file, const Run& shard) {
    for (size_t index = shard.first; index < shard.first + shard.count; ++index) {
      const SyntheticTensor& tensor = model_.tensors[index];
      const int64_t chunk_count =
          (TensorBytes(tensor) + kSyntheticChunkBytes - 1) / kSyntheticChunkBytes;
      for (int64_t chunk = 0; chunk < chunk_count; ++chunk) {
        const std::span<const std::byte> bytes = values_.Chunk(tensor, index, chunk);
        absl::Status status = file.Append(bytes);
        if (status.ok()) {
          status = Count(std::ssize(bytes));
        }
        if (!status.ok()) {
          return status;
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status Count(int64_t bytes) {
    written_bytes_ += bytes;
    return progress_(written_bytes_, data_bytes_)
               ? absl::OkStatus()
               : absl::CancelledError("writing the checkpoint was cancelled");
  }

  std::string IndexJson(const std::vector<Run>& shards) const {
    std::string json = absl::StrCat("{\n  \"metadata\": {\"total_size\": ", data_bytes_,
                                    "},\n  \"weight_map\": {");
    const char* separator = "\n";
    for (size_t shard = 0; shard < shards.size(); ++shard) {
      for (size_t index = 0; index < shards[shard].count; ++index) {
        absl::StrAppend(&json, separator, "    \"",
                        model_.tensors[shards[shard].first + index].name, "\": \"",
                        ShardName(shard, shards.size()), "\"");
        separator = ",\n";
      }
    }
    absl::StrAppend(&json, "\n  }\n}\n");
    return json;
  }

  const SyntheticModel& model_;
  const SyntheticOptions options_;
  NewDirectory& target_;
  const SyntheticProgress progress_;
  const int64_t data_bytes_;
  SyntheticValues values_;
  int64_t written_bytes_ = 0;
};

// Headers, index and tokenizer beside the data: 100 bytes a tensor and 20 a token, amply.
int64_t DiskBytes(const SyntheticModel& model, bool sparse) {
  const int64_t text_bytes = std::ssize(model.tensors) * 400 + model.vocabulary_size * 24 + 65'536;
  return text_bytes + (sparse ? 0 : DataBytes(model));
}

}  // namespace

std::vector<SyntheticShapeInfo> ListSyntheticShapes() {
  std::vector<SyntheticShapeInfo> shapes;
  for (const std::string& name : SyntheticShapeNames()) {
    const SyntheticModel model = MakeSyntheticModel(name);
    SyntheticShapeInfo& info = shapes.emplace_back();
    info.name = model.name;
    info.description = model.description;
    info.data_bytes = DataBytes(model);
    for (const SyntheticTensor& tensor : model.tensors) {
      info.parameter_count += ElementCount(tensor);
    }
  }
  return shapes;
}

absl::Status WriteSyntheticCheckpoint(absl::string_view shape_name, const std::string& directory,
                                      const SyntheticOptions& options, SyntheticProgress progress) {
  const std::vector<std::string> names = SyntheticShapeNames();
  if (std::find(names.begin(), names.end(), shape_name) == names.end()) {
    return absl::NotFoundError(
        absl::StrCat("no shape '", shape_name, "'; there are ", absl::StrJoin(names, ", ")));
  }
  const SyntheticModel model = MakeSyntheticModel(shape_name);
  NewDirectory target(directory);
  absl::Status status = target.Make();
  if (status.ok()) {
    status = target.CheckSpace(DiskBytes(model, options.sparse));
  }
  if (status.ok()) {
    status = Writer(model, options, target, progress).Write();
  }
  return status.ok() ? target.Keep() : status;
}

}  // namespace nibble
