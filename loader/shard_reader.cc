#include "loader/shard_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "loader/printable.h"

namespace nibble {
namespace {

// Of all shards together: a bound for the memory that a hostile checkpoint can take. The headers of
// a trillion parameters take some 30 MB.
constexpr int64_t kHeaderBytesTotalMax = 2 * kSafetensorsHeaderBytesMax;

}  // namespace

ShardReader::ShardReader(Checkpoint& checkpoint, CheckpointIndex index, bool has_index)
    : checkpoint_(checkpoint), index_(std::move(index)), has_index_(has_index) {}

const std::string& ShardReader::file_name(int shard_index) const {
  return index_.shards[static_cast<size_t>(shard_index)];
}

absl::Status ShardReader::Read() {
  const auto shard_count = static_cast<int>(index_.shards.size());
  for (int shard_index = 0; shard_index < shard_count; ++shard_index) {
    if (absl::Status status = ReadShard(shard_index); !status.ok()) {
      return status;
    }
  }
  return has_index_ ? CheckAllFound() : absl::OkStatus();
}

absl::Status ShardReader::ReadShard(int shard_index) {
  const std::string& name = file_name(shard_index);
  const auto file = checkpoint_.directory->Open(name);
  if (!file.ok()) {
    return absl::IsNotFound(file.status())
               ? absl::DataLossError(absl::StrCat(Printable(checkpoint_.directory->name()),
                                                  ": the shard ", name, " is missing"))
               : file.status();
  }
  const absl::StatusOr<FileIdentity> before = (*file)->Identify();
  if (!before.ok()) {
    return before.status();
  }
  absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(name, **file);
  if (!header.ok()) {
    return header.status();
  }
  const absl::StatusOr<FileIdentity> after = (*file)->Identify();
  if (!after.ok()) {
    return after.status();
  }
  if (*before != *after) {
    return absl::DataLossError(absl::StrCat(name, ": was changed while it was read"));
  }
  header_bytes_ += header->entries.empty() ? before->bytes : header->entries.front().begin_bytes;
  if (header_bytes_ > kHeaderBytesTotalMax) {
    return absl::ResourceExhaustedError(absl::StrCat(name, ": expected headers of at most ",
                                                     kHeaderBytesTotalMax,
                                                     " bytes in all shards together"));
  }
  checkpoint_.shards.push_back(
      {.file_name = name, .identity = *before, .header_digest = std::move(header->digest)});
  return AddTensors(shard_index, *std::move(header));
}

absl::Status ShardReader::AddTensors(int shard_index, SafetensorsHeader header) {
  int ignored_count = 0;
  std::string first_ignored;
  for (SafetensorsEntry& entry : header.entries) {
    const absl::StatusOr<bool> belongs = Place(entry, shard_index);
    if (!belongs.ok()) {
      return absl::Status(belongs.status().code(),
                          absl::StrCat(file_name(shard_index), ": tensor ", Printable(entry.name),
                                       ": ", belongs.status().message()));
    }
    if (!*belongs) {
      first_ignored = ignored_count++ == 0 ? entry.name : first_ignored;
      continue;
    }
    checkpoint_.tensors.push_back({.name = std::move(entry.name),
                                   .shard_index = shard_index,
                                   .dtype = entry.dtype,
                                   .shape = std::move(entry.shape),
                                   .file_offset = entry.begin_bytes,
                                   .bytes = entry.bytes});
  }
  if (ignored_count > 0) {
    checkpoint_.warnings.push_back(
        absl::StrCat(file_name(shard_index), ": ", ignored_count, " tensors are not in ",
                     kIndexFileName, " and are ignored, the first is ", Printable(first_ignored)));
  }
  return absl::OkStatus();
}

// Notes that the tensor is in this shard. False if it is no part of the model: as in transformers,
// the index says what is.
absl::StatusOr<bool> ShardReader::Place(const SafetensorsEntry& entry, int shard_index) {
  if (HasControlCharacters(entry.name)) {
    return absl::InvalidArgumentError("expected a name without control characters");
  }
  TensorPlace& place = index_.places.try_emplace(entry.name).first->second;
  if (index_.places.size() > kIndexTensorsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("expected at most ", kIndexTensorsMax, " in index and shards together"));
  }
  if (place.found_shard >= 0) {
    return absl::DataLossError(absl::StrCat("is in ", file_name(place.found_shard), " too"));
  }
  place.found_shard = shard_index;
  return !has_index_ || place.indexed_shard >= 0;
}

// That every tensor of the index is in its shard; names the first that is not.
absl::Status ShardReader::CheckAllFound() const {
  const std::pair<const std::string, TensorPlace>* first = nullptr;
  for (const auto& entry : index_.places) {
    const bool misplaced =
        entry.second.indexed_shard >= 0 && entry.second.indexed_shard != entry.second.found_shard;
    if (misplaced && (first == nullptr || entry.first < first->first)) {
      first = &entry;
    }
  }
  if (first == nullptr) {
    return absl::OkStatus();
  }
  const auto& [name, place] = *first;
  return absl::DataLossError(absl::StrCat(
      file_name(place.indexed_shard), ": expected tensor ", Printable(name), " as ", kIndexFileName,
      " says, found it ",
      place.found_shard < 0 ? "nowhere" : absl::StrCat("in ", file_name(place.found_shard))));
}

}  // namespace nibble
