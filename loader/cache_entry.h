// An entry of the quantized cache, opened in place of the source it was made from.

#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "loader/cache_key.h"
#include "loader/cache_manifest.h"
#include "loader/checkpoint.h"
#include "loader/load_plan.h"
#include "loader/tile_checksums.h"

namespace nibble {

// What a load of the entry needs.
struct CacheEntry {
  Checkpoint checkpoint;  // Directory and shards alone.
  std::shared_ptr<const LoadPlan> plan;
  std::unique_ptr<const TileChecksums> checksums;
};

// Opens the entry in `directory` for the load of `plan`: its manifest has this key, its files have
// their sizes, and everything of them that is in no tile is as it was written.
//
// Errors: NOT_FOUND if there is no manifest; DATA_LOSS with a reason of tile_checksums.h for
//   anything that is not as it should be.
// Cost: reads the manifest and what lies between the planes, some 200 bytes a tensor.
absl::StatusOr<CacheEntry> OpenCacheEntry(std::shared_ptr<const CheckpointDirectory> directory,
                                          const CacheKey& key, const LoadPlan& plan);

// `plan`, reading what it makes from an entry's files instead: places in the files differ, and what
// is there; the slab and all that is reserved are the same.
//
// Errors: DATA_LOSS with reason kCacheManifestBroken if the manifest has other tensors, parts or
// planes.
absl::StatusOr<LoadPlan> RetargetPlan(const LoadPlan& plan, const CacheManifest& manifest);

}  // namespace nibble
