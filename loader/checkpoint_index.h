// model.safetensors.index.json: which shard holds which tensor.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loader/name_map.h"

namespace nibble {

inline constexpr absl::string_view kIndexFileName = "model.safetensors.index.json";

// A model of a trillion parameters has some 200 000 tensors in 200 shards, and an index of 20 MB.
inline constexpr int64_t kIndexBytesMax = int64_t{128} << 20;
inline constexpr size_t kIndexTensorsMax = 1 << 20;
inline constexpr size_t kShardsMax = 10'000;

// Where a tensor should be and where it was found: indices of shards, -1 for nowhere.
struct TensorPlace {
  int indexed_shard = -1;
  int found_shard = -1;  // For whoever reads the shards.
};

struct CheckpointIndex {
  std::vector<std::string> shards;  // Plain file names, sorted.
  NameMap<TensorPlace> places;      // By tensor name.
};

// Errors: DATA_LOSS for malformed JSON (limits above, depth 64), a tensor that stands twice, or no
//   tensors; INVALID_ARGUMENT for a shard that is no plain file name or a tensor name with control
//   characters. All name `file_name`.
absl::StatusOr<CheckpointIndex> ParseCheckpointIndex(absl::string_view file_name,
                                                     absl::string_view json);

}  // namespace nibble
