// The file of a cache entry that says what the entry is, where each plane of each tensor lies in
// its files, and what every byte of them should be.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loader/checkpoint.h"
#include "loader/load_plan.h"
#include "loader/piece_index.h"

namespace nibble {

// An entry is a directory: an exported checkpoint, and this file, which is written last.
inline constexpr absl::string_view kManifestFileName = "nibble-cache-manifest";

// A terabyte of 4-bit weights has 128 MiB of checksums, and as much again of names and places.
inline constexpr int64_t kManifestBytesMax = int64_t{512} << 20;

//   line 1       the key's text, see CacheKey
//   line 2       {"files": [{"name": "model-00001-of-00002.safetensors", "bytes": N,
//                            "rest": DIGEST}, ...],
//                 "tensors": [{"name": "model.embed_tokens.weight",
//                              "parts": [{"data": [FILE, OFFSET, BYTES],
//                                         "scales": [...], "scale_maxima": [...],
//                                         "scale_mean": fp32 as the number of its bits}, ...]},
//                             ...]}
//   64 bits each the checksums of the planes' pieces, little-endian; the pieces of a plane count
//   from
//                its start, kCopyTileAlignmentBytes each but the last
//   64 bits      the checksum of everything before it
//
// Tensors are those that are loaded, in the order of the plan. A plane without bytes is left out;
// so is the mean but of double-quantized scales. "rest" sums up the bytes of a file that lie in no
// plane, in order: headers, side tensors, whole files such as config.json.
struct CacheManifest {
  struct File {
    std::string name;  // Plain; each is there once.
    int64_t bytes = 0;
    std::string rest_digest;

    friend bool operator==(const File&, const File&) = default;
  };
  struct Part {
    std::array<FileRange, kPlaneCount> planes;  // shard_index counts `files`; 0 bytes: no plane.
    float scale_mean = 0;
  };
  struct Tensor {
    std::string name;
    std::vector<Part> parts;
  };

  std::string key;  // Without a line break.
  std::vector<File> files;
  std::vector<Tensor> tensors;
  std::vector<uint64_t> checksums;  // In the order of tensors, parts, planes, pieces.
};

// Requires: what ParseCacheManifest checks.
std::string WriteCacheManifest(const CacheManifest& manifest);

// Accepts what WriteCacheManifest writes, and nothing else: every range lies within its file,
// ranges do not overlap, there is a checksum for each piece.
//
// Errors: DATA_LOSS.
absl::StatusOr<CacheManifest> ParseCacheManifest(absl::string_view bytes);

// The ranges of each file of a manifest, in order.
std::vector<std::vector<FileRange>> RangesByFile(const CacheManifest& manifest);

}  // namespace nibble
