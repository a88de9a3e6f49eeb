#include "loader/checkpoint.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "loader/checkpoint_index.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr absl::string_view kConfigFileName = "config.json";
constexpr absl::string_view kSingleFileName = "model.safetensors";
constexpr int64_t kConfigBytesMax = int64_t{16} << 20;

// Of all shards together: a bound for the memory that a hostile checkpoint can take. The headers of
// a trillion parameters take some 30 MB.
constexpr int64_t kHeaderBytesTotalMax = 2 * kSafetensorsHeaderBytesMax;

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

absl::Status RefuseForeignQuantization(const ModelConfig& config) {
  const std::string& method = config.quantization_method;
  if (method.empty()) {
    return absl::OkStatus();
  }
  const bool planned = method == "bitsandbytes" || method == "fp8";
  return absl::UnimplementedError(
      absl::StrCat(kConfigFileName, ": quantization_config.quant_method: ", Printable(method),
                   planned ? " comes with a later version; " : " is not supported; ",
                   "use the checkpoint in 16 or 32 bits that it was made from"));
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

// What a checkpoint's tensors lie in.
struct ShardList {
  std::vector<std::string> files;
  std::optional<CheckpointIndex> index;
};

// The index decides if there is one; transformers would prefer a model.safetensors beside it, but
// one of the two is then a leftover, and the index is what names all the files.
absl::StatusOr<ShardList> FindShards(const CheckpointDirectory& directory,
                                     const std::vector<std::string>& files) {
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
    ShardList list = {.files = index->shards, .index = {}};
    list.index = *std::move(index);
    return list;
  }
  if (Contains(files, kSingleFileName)) {
    return ShardList{.files = {std::string(kSingleFileName)}, .index = {}};
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
  return ShardList{.files = *std::move(numbered), .index = {}};
}

// Errors: UNIMPLEMENTED for a checkpoint that is quantized already.
absl::StatusOr<ModelConfig> ReadConfig(const CheckpointDirectory& directory,
                                       const std::vector<std::string>& files) {
  if (!Contains(files, kConfigFileName)) {
    return absl::NotFoundError(absl::StrCat(Printable(directory.name()), ": expected a ",
                                            kConfigFileName, ", found ",
                                            files.empty() ? "an empty folder" : "none"));
  }
  const absl::StatusOr<std::string> json =
      ReadTextFile(directory, kConfigFileName, kConfigBytesMax);
  if (!json.ok()) {
    return json.status();
  }
  absl::StatusOr<ModelConfig> config = ParseModelConfig(kConfigFileName, *json);
  if (!config.ok()) {
    return config.status();
  }
  if (absl::Status status = RefuseForeignQuantization(*config); !status.ok()) {
    return status;
  }
  return config;
}

// Reads the headers of a checkpoint's shards into it.
class ShardReader {
 public:
  ShardReader(Checkpoint& checkpoint, const CheckpointIndex* index)
      : checkpoint_(checkpoint), index_(index) {}

  absl::Status Read(const std::vector<std::string>& shards) {
    for (const std::string& shard : shards) {
      if (absl::Status status = ReadShard(shard); !status.ok()) {
        return status;
      }
    }
    return index_ == nullptr ? absl::OkStatus() : CheckAllFound();
  }

 private:
  absl::Status ReadShard(const std::string& file_name) {
    const auto file = checkpoint_.directory->Open(file_name);
    if (!file.ok()) {
      return absl::IsNotFound(file.status())
                 ? absl::DataLossError(absl::StrCat(Printable(checkpoint_.directory->name()),
                                                    ": the shard ", file_name, " is missing"))
                 : file.status();
    }
    const absl::StatusOr<FileIdentity> before = (*file)->Identify();
    if (!before.ok()) {
      return before.status();
    }
    absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(file_name, **file);
    if (!header.ok()) {
      return header.status();
    }
    const absl::StatusOr<FileIdentity> after = (*file)->Identify();
    if (!after.ok()) {
      return after.status();
    }
    if (*before != *after) {
      return absl::DataLossError(absl::StrCat(file_name, ": was changed while it was read"));
    }
    header_bytes_ += header->entries.empty() ? before->bytes : header->entries.front().begin_bytes;
    if (header_bytes_ > kHeaderBytesTotalMax) {
      return absl::ResourceExhaustedError(absl::StrCat(file_name, ": expected headers of at most ",
                                                       kHeaderBytesTotalMax,
                                                       " bytes in all shards together"));
    }
    checkpoint_.shards.push_back({.file_name = file_name, .identity = *before});
    return AddTensors(*std::move(header));
  }

  absl::Status AddTensors(SafetensorsHeader header) {
    const int shard_index = static_cast<int>(checkpoint_.shards.size()) - 1;
    int unindexed_count = 0;
    std::string first_unindexed;
    for (SafetensorsEntry& entry : header.entries) {
      if (absl::Status status = CheckName(entry.name, shard_index); !status.ok()) {
        return status;
      }
      if (index_ != nullptr && !index_->shard_of.contains(entry.name)) {
        // As in transformers, the index says what belongs to the model.
        first_unindexed = unindexed_count++ == 0 ? entry.name : first_unindexed;
        continue;
      }
      checkpoint_.tensors.push_back({.name = std::move(entry.name),
                                     .shard_index = shard_index,
                                     .dtype = entry.dtype,
                                     .shape = std::move(entry.shape),
                                     .file_offset = entry.begin_bytes,
                                     .bytes = entry.bytes});
    }
    if (unindexed_count > 0) {
      checkpoint_.warnings.push_back(absl::StrCat(
          file_name(shard_index), ": ", unindexed_count, " tensors are not in ", kIndexFileName,
          " and are ignored, the first is ", Printable(first_unindexed)));
    }
    return absl::OkStatus();
  }

  absl::Status CheckName(const std::string& name, int shard_index) {
    if (HasControlCharacters(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_name(shard_index), ": tensor ", Printable(name),
                       ": expected a name without control characters"));
    }
    const auto [known, is_new] = shard_of_.try_emplace(name, shard_index);
    if (!is_new) {
      return absl::DataLossError(absl::StrCat(file_name(shard_index), ": tensor ", Printable(name),
                                              " is in ", file_name(known->second), " too"));
    }
    return absl::OkStatus();
  }

  // That every tensor of the index is in its shard; names the first that is not.
  absl::Status CheckAllFound() const {
    const std::string* first = nullptr;
    for (const auto& [name, shard_index] : index_->shard_of) {
      const auto found = shard_of_.find(name);
      if ((found == shard_of_.end() || found->second != shard_index) &&
          (first == nullptr || name < *first)) {
        first = &name;
      }
    }
    if (first == nullptr) {
      return absl::OkStatus();
    }
    const auto found = shard_of_.find(*first);
    return absl::DataLossError(absl::StrCat(
        file_name(index_->shard_of.at(*first)), ": expected tensor ", Printable(*first), " as ",
        kIndexFileName, " says, found it ",
        found == shard_of_.end() ? "nowhere" : absl::StrCat("in ", file_name(found->second))));
  }

  const std::string& file_name(int shard_index) const {
    return checkpoint_.shards[static_cast<size_t>(shard_index)].file_name;
  }

  Checkpoint& checkpoint_;
  const CheckpointIndex* const index_;              // Null if the checkpoint has none.
  absl::flat_hash_map<std::string, int> shard_of_;  // Every tensor seen.
  int64_t header_bytes_ = 0;
};

// Mentions safetensors files that are no part of the checkpoint: adapters, another format's copy.
void WarnOfIgnoredFiles(const std::vector<std::string>& files,
                        const std::vector<std::string>& shards, Checkpoint& checkpoint) {
  std::vector<std::string> ignored;
  for (const std::string& file : files) {
    if (absl::EndsWith(file, ".safetensors") &&
        std::find(shards.begin(), shards.end(), file) == shards.end()) {
      ignored.push_back(Printable(file));
    }
  }
  if (!ignored.empty()) {
    checkpoint.warnings.push_back(
        absl::StrCat(ignored.size(), " safetensors files are no part of the checkpoint and are ",
                     "ignored, the first is ", ignored.front()));
  }
}

}  // namespace

absl::StatusOr<Checkpoint> OpenCheckpoint(std::shared_ptr<const CheckpointDirectory> directory) {
  const absl::StatusOr<std::vector<std::string>> files = directory->List();
  if (!files.ok()) {
    return files.status();
  }
  absl::StatusOr<ModelConfig> config = ReadConfig(*directory, *files);
  if (!config.ok()) {
    return config.status();
  }
  const absl::StatusOr<ShardList> shards = FindShards(*directory, *files);
  if (!shards.ok()) {
    return shards.status();
  }
  Checkpoint checkpoint;
  checkpoint.directory = std::move(directory);
  checkpoint.config = *std::move(config);
  const CheckpointIndex* const index = shards->index.has_value() ? &*shards->index : nullptr;
  if (absl::Status status = ShardReader(checkpoint, index).Read(shards->files); !status.ok()) {
    return status;
  }
  WarnOfIgnoredFiles(*files, shards->files, checkpoint);
  return checkpoint;
}

}  // namespace nibble
