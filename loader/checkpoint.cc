#include "loader/checkpoint.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "loader/checkpoint_index.h"
#include "loader/f8_scales.h"
#include "loader/name_map.h"
#include "loader/printable.h"
#include "loader/quantized_tensors.h"
#include "loader/shard_reader.h"

namespace nibble {
namespace {

constexpr absl::string_view kConfigFileName = "config.json";
constexpr absl::string_view kSingleFileName = "model.safetensors";

absl::StatusOr<std::string> ReadTextFile(const CheckpointDirectory& directory,
                                         absl::string_view file_name, int64_t bytes_max) {
  const auto file = directory.Open(file_name);
  if (!file.ok()) {
    return file.status();
  }
  const absl::StatusOr<FileIdentity> identity = (*file)->Identify();
  if (!identity.ok()) {
    return identity.status();
  }
  if (identity->bytes > bytes_max) {
    return absl::DataLossError(absl::StrCat(file_name, ": expected at most ", bytes_max,
                                            " bytes, found ", identity->bytes));
  }
  std::string text(static_cast<size_t>(identity->bytes), '\0');
  if (absl::Status read = (*file)->Read(0, std::as_writable_bytes(std::span(text))); !read.ok()) {
    return read;
  }
  return text;
}

// Requires: `files` is sorted.
bool Contains(const std::vector<std::string>& files, absl::string_view file_name) {
  return std::binary_search(files.begin(), files.end(), file_name);
}

// What can be read is bitsandbytes' 4 bits (in its 8 bits the method is "bitsandbytes_8bit") and F8
// with scales.
absl::Status RefuseForeignQuantization(const ModelConfig& config) {
  const std::string& method = config.quantization_method;
  if (method.empty() || method == "bitsandbytes" || method == "fp8") {
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat(
      kConfigFileName, ": quantization_config.quant_method: ", Printable(method),
      " is not supported; ", "use the checkpoint in 16 or 32 bits that it was made from"));
}

// The shards among `files`, in order, that "model-00001-of-00003.safetensors" and its like make up.
//
// Errors: DATA_LOSS if one is missing or they belong to different sets.
absl::StatusOr<std::vector<std::string>> NumberedShards(const std::vector<std::string>& files) {
  std::map<int, std::string> shards;  // By number.
  int set_size = 0;
  for (const std::string& file : files) {
    const std::vector<absl::string_view> parts =
        absl::StrSplit(absl::StripSuffix(file, ".safetensors"), '-');
    int number = 0;
    int of = 0;
    const bool numbered = absl::EndsWith(file, ".safetensors") && parts.size() == 4 &&
                          parts[0] == "model" && parts[2] == "of" &&
                          absl::SimpleAtoi(parts[1], &number) && absl::SimpleAtoi(parts[3], &of);
    if (!numbered) {
      continue;
    }
    if ((set_size != 0 && of != set_size) || !shards.emplace(number, file).second) {
      return absl::DataLossError(absl::StrCat(Printable(file), ": expected one set of shards, ",
                                              "found two, and no ", kIndexFileName));
    }
    set_size = of;
  }
  std::vector<std::string> sorted;
  for (auto& [number, file] : shards) {
    sorted.push_back(std::move(file));
    if (number != static_cast<int>(sorted.size())) {
      break;
    }
  }
  if (!sorted.empty() && sorted.size() != static_cast<size_t>(set_size)) {
    return absl::DataLossError(absl::StrCat("expected the shards 1 to ", set_size, ", found ",
                                            shards.size(), " and no ", kIndexFileName));
  }
  return sorted;
}

// What a checkpoint's tensors lie in: what the index says, or, without one, the shards alone.
struct ShardList {
  CheckpointIndex index;
  bool has_index = false;
};

// The index decides if there is one; transformers would prefer a model.safetensors beside it, but
// one of the two is then a leftover, and the index is what names all the files.
absl::StatusOr<ShardList> FindShards(const CheckpointDirectory& directory,
                                     const std::vector<std::string>& files) {
  ShardList list;
  if (Contains(files, kIndexFileName)) {
    const absl::StatusOr<std::string> json =
        ReadTextFile(directory, kIndexFileName, kIndexBytesMax);
    if (!json.ok()) {
      return json.status();
    }
    absl::StatusOr<CheckpointIndex> index = ParseCheckpointIndex(kIndexFileName, *json);
    if (!index.ok()) {
      return index.status();
    }
    list.index = *std::move(index);
    list.has_index = true;
    return list;
  }
  if (Contains(files, kSingleFileName)) {
    list.index.shards.emplace_back(kSingleFileName);
    return list;
  }
  absl::StatusOr<std::vector<std::string>> numbered = NumberedShards(files);
  const std::string name = Printable(directory.name());
  if (!numbered.ok()) {
    return absl::DataLossError(absl::StrCat(name, ": ", numbered.status().message()));
  }
  if (numbered->empty()) {
    return absl::NotFoundError(absl::StrCat(name, ": expected ", kIndexFileName, ", ",
                                            kSingleFileName, " or model-00001-of-0000N.safetensors",
                                            ", found none of them"));
  }
  list.index.shards = *std::move(numbered);
  return list;
}

// Fills the checkpoint's config.
//
// Errors: UNIMPLEMENTED for a quantization that cannot be read.
absl::Status ReadConfig(const CheckpointDirectory& directory, const std::vector<std::string>& files,
                        Checkpoint& checkpoint) {
  if (!Contains(files, kConfigFileName)) {
    return absl::NotFoundError(absl::StrCat(Printable(directory.name()), ": expected a ",
                                            kConfigFileName, ", found ",
                                            files.empty() ? "an empty folder" : "none"));
  }
  absl::StatusOr<std::string> json = ReadTextFile(directory, kConfigFileName, kConfigBytesMax);
  if (!json.ok()) {
    return json.status();
  }
  absl::StatusOr<ModelConfig> config = ParseModelConfig(kConfigFileName, *json);
  if (!config.ok()) {
    return config.status();
  }
  checkpoint.config = *std::move(config);
  checkpoint.config_json = *std::move(json);
  return RefuseForeignQuantization(checkpoint.config);
}

// Mentions safetensors files that are no part of the checkpoint: adapters, another format's copy.
void WarnOfIgnoredFiles(const std::vector<std::string>& files, Checkpoint& checkpoint) {
  NameViewSet read;
  for (const Shard& shard : checkpoint.shards) {
    read.insert(shard.file_name);
  }
  std::vector<absl::string_view> ignored;
  for (const std::string& file : files) {
    if (absl::EndsWith(file, ".safetensors") && !read.contains(file)) {
      ignored.push_back(file);
    }
  }
  if (!ignored.empty()) {
    checkpoint.warnings.push_back(
        absl::StrCat(ignored.size(), " safetensors files are no part of the checkpoint and are ",
                     "ignored, the first is ", Printable(ignored.front())));
  }
}

}  // namespace

std::string PlaceText(const Checkpoint& checkpoint, const CheckpointTensor& tensor) {
  const Shard& shard = checkpoint.shards[static_cast<size_t>(tensor.shard_index)];
  return absl::StrCat(shard.file_name, ": tensor ", Printable(tensor.name), ": ");
}

void RemoveTensors(const std::vector<bool>& removed, Checkpoint& checkpoint) {
  std::vector<CheckpointTensor>& tensors = checkpoint.tensors;
  size_t kept_count = 0;
  for (size_t index = 0; index < tensors.size(); ++index) {
    if (removed[index]) {
      continue;
    }
    if (kept_count != index) {
      tensors[kept_count] = std::move(tensors[index]);
    }
    ++kept_count;
  }
  tensors.resize(kept_count);
}

absl::StatusOr<Checkpoint> OpenCheckpoint(std::shared_ptr<const CheckpointDirectory> directory) {
  const absl::StatusOr<std::vector<std::string>> files = directory->List();
  if (!files.ok()) {
    return files.status();
  }
  Checkpoint checkpoint;
  if (absl::Status status = ReadConfig(*directory, *files, checkpoint); !status.ok()) {
    return status;
  }
  absl::StatusOr<ShardList> shards = FindShards(*directory, *files);
  if (!shards.ok()) {
    return shards.status();
  }
  checkpoint.directory = std::move(directory);
  ShardReader reader(checkpoint, std::move(shards->index), shards->has_index);
  if (absl::Status status = reader.Read(); !status.ok()) {
    return status;
  }
  absl::Status status = MergeQuantizedTensors(checkpoint);
  status.Update(status.ok() ? MergeF8Scales(checkpoint) : absl::OkStatus());
  if (!status.ok()) {
    return status;
  }
  WarnOfIgnoredFiles(*files, checkpoint);
  return checkpoint;
}

}  // namespace nibble
