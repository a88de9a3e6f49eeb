#include "loader/checkpoint_index.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "loader/json_reader.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr int kIndexDepthMax = 64;

class IndexParser {
 public:
  explicit IndexParser(absl::string_view json) : reader_(json, {.depth_max = kIndexDepthMax}) {}

  absl::StatusOr<CheckpointIndex> Parse() {
    std::string key;
    bool mapped = false;
    reader_.EnterObject();
    while (reader_.NextMember(key)) {
      if (key != "weight_map") {
        reader_.SkipValue();
      } else if (mapped) {
        reader_.Refuse("weight_map stands twice");
      } else {
        mapped = true;
        ParseWeightMap();
      }
    }
    reader_.Finish();
    if (!bad_name_.ok()) {
      return bad_name_;
    }
    if (!reader_.status().ok()) {
      return reader_.status();
    }
    if (index_.places.empty()) {
      return absl::DataLossError("expected tensors in weight_map, found none");
    }
    SortShards();
    return std::move(index_);
  }

 private:
  void ParseWeightMap() {
    std::string tensor;
    std::string shard;
    reader_.EnterObject();
    while (reader_.NextMember(tensor) && reader_.ReadString(shard)) {
      // Nearly every tensor lies in a shard that was seen before.
      const auto known = shard_indexes_.find(shard);
      if (HasControlCharacters(tensor) ||
          (known == shard_indexes_.end() && !IsPlainFileName(shard))) {
        bad_name_ = absl::InvalidArgumentError(
            absl::StrCat("tensor ", Printable(tensor),
                         ": expected a name without control characters and a plain file name, ",
                         "found ", Printable(shard)));
        reader_.Refuse("a bad name");
        return;
      }
      Add(tensor, known == shard_indexes_.end() ? AddShard(shard) : known->second);
    }
  }

  int AddShard(const std::string& shard) {
    const auto shard_index = static_cast<int>(index_.shards.size());
    index_.shards.push_back(shard);
    shard_indexes_.emplace(shard, shard_index);
    return shard_index;
  }

  void Add(const std::string& tensor, int shard_index) {
    if (!index_.places.try_emplace(tensor, TensorPlace{.indexed_shard = shard_index}).second) {
      reader_.Refuse(absl::StrCat("tensor ", Printable(tensor), " stands twice"));
    }
    if (index_.shards.size() > kShardsMax || index_.places.size() > kIndexTensorsMax) {
      reader_.Refuse(absl::StrCat("expected at most ", kShardsMax, " shards and ", kIndexTensorsMax,
                                  " tensors"));
    }
  }

  // Shards are read in the order of their names, whatever the order of the tensors.
  void SortShards() {
    std::sort(index_.shards.begin(), index_.shards.end());
    std::vector<int> sorted_index(index_.shards.size());
    for (size_t i = 0; i < index_.shards.size(); ++i) {
      sorted_index[static_cast<size_t>(shard_indexes_.at(index_.shards[i]))] = static_cast<int>(i);
    }
    for (auto& [tensor, place] : index_.places) {
      place.indexed_shard = sorted_index[static_cast<size_t>(place.indexed_shard)];
    }
  }

  JsonReader reader_;
  CheckpointIndex index_;
  NameMap<int> shard_indexes_;
  absl::Status bad_name_;
};

}  // namespace

absl::StatusOr<CheckpointIndex> ParseCheckpointIndex(absl::string_view file_name,
                                                     absl::string_view json) {
  if (json.size() > static_cast<size_t>(kIndexBytesMax)) {
    return absl::DataLossError(absl::StrCat(file_name, ": expected at most ", kIndexBytesMax,
                                            " bytes, found ", json.size()));
  }
  absl::StatusOr<CheckpointIndex> index = IndexParser(json).Parse();
  if (!index.ok()) {
    return absl::Status(index.status().code(),
                        absl::StrCat(file_name, ": ", index.status().message()));
  }
  return index;
}

}  // namespace nibble
