// Reads the headers of a checkpoint's shards and checks them against each other and the index.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "loader/checkpoint.h"
#include "loader/checkpoint_index.h"

namespace nibble {

// Fills in a checkpoint's shards and tensors, one shard after the other. For one use.
class ShardReader {
 public:
  // With `has_index`, `index` says where each tensor should be; without, only which shards there
  // are. `checkpoint` has its directory, and must outlive this.
  ShardReader(Checkpoint& checkpoint, CheckpointIndex index, bool has_index);

  // Errors: as OpenCheckpoint.
  absl::Status Read();

 private:
  absl::Status ReadShard(int shard_index);
  absl::Status AddTensors(int shard_index, SafetensorsHeader header);
  absl::StatusOr<bool> Place(const SafetensorsEntry& entry, int shard_index);
  absl::Status CheckAllFound() const;
  const std::string& file_name(int shard_index) const;

  Checkpoint& checkpoint_;
  CheckpointIndex index_;
  const bool has_index_;
  int64_t header_bytes_ = 0;  // Of all shards so far.
};

}  // namespace nibble
