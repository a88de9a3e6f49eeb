// What the bytes of a cache entry's planes should be, tile by tile as they are read.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "loader/load_plan.h"
#include "loader/piece_index.h"
#include "loader/tile_list.h"

namespace nibble {

// Why an entry of the cache cannot be used, as ErrorDetails::reason says it. All are DATA_LOSS: the
// source has the same bytes to give.
inline constexpr absl::string_view kCacheManifestBroken = "CACHE_MANIFEST";
inline constexpr absl::string_view kCacheFileMissing = "CACHE_FILE_MISSING";
inline constexpr absl::string_view kCacheFileSize = "CACHE_FILE_SIZE";
inline constexpr absl::string_view kCacheChecksum = "CACHE_CHECKSUM";
inline constexpr absl::string_view kCacheUnreadable = "CACHE_UNREADABLE";

absl::Status CacheFailure(absl::string_view reason, absl::string_view message);

// An error of an entry's file, whatever its code, as one of those above; one that has a reason
// keeps it.
absl::Status AsCacheFailure(const absl::Status& error);

// A checksum for each piece of each plane. Immutable; thread-safe.
class TileChecksums {
 public:
  // `checksums` stand in the order of the plan's tensors, their parts, planes and pieces.
  //
  // Requires: every tensor of `plan` that is loaded is copied as it is in the file, there is one
  //   checksum for each piece (CacheManifest), and `plan` outlives this.
  TileChecksums(const LoadPlan& plan, std::vector<uint64_t> checksums);

  // Whether `bytes`, all of the tile as it was read, are what they should be.
  //
  // Errors: DATA_LOSS with reason kCacheChecksum that says which piece is not.
  absl::Status Verify(const Tile& tile, std::span<const std::byte> bytes) const;

 private:
  const LoadPlan* plan_;
  const PieceIndex pieces_;
  const std::vector<uint64_t> checksums_;
};

}  // namespace nibble
