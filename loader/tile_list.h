// The tiles of a load: the pieces in which a plan's parts are read, in the order of the files.

#pragma once

#include <cstdint>
#include <vector>

#include "loader/load_plan.h"

namespace nibble {

// What is read and placed at once: a run of a plane of one part. Its units are elements where
// elements are read; where codes and scales are, the numbers of their plane (two codes are one).
// Of elements that are quantized it holds whole blocks (the part's last tile may end within one),
// so that its bytes are those of quantizing the part in one go. Tiles of planes that are copied as
// they are begin on multiples of kCopyTileAlignmentBytes within their plane.
struct Tile {
  int64_t index = 0;
  int32_t tensor_index = 0;
  int32_t part_index = 0;
  Plane plane = Plane::kData;
  int64_t first = 0;  // Unit, within the plane.
  int64_t count = 0;  // Units.
  int64_t tiles_of_plane = 0;
};

// Tiles of planes that are copied are whole pieces of this size, but for a plane's last one: the
// unit of the cache's checksums.
inline constexpr int64_t kCopyTileAlignmentBytes = 64_KiB;

// Whether a tensor's planes go to the slab as they are in the file.
bool IsCopied(const PlannedTensor& tensor);

// Bytes of one unit in the file.
int64_t FileUnitBytes(const PlannedTensor& tensor, Plane plane);

// Cuts a plan into tiles without holding them: a 67 GB checkpoint has 130 000, and a plan must not
// cost host memory by the size of its source. Immutable; thread-safe.
class TileList {
 public:
  // Holds a block of the largest size and widest type.
  static constexpr int64_t kTileBytesMin = 64_KiB;

  // Must not outlive `plan`. Requires: tile_bytes >= kTileBytesMin.
  TileList(const LoadPlan& plan, int64_t tile_bytes);

  int64_t size() const { return size_; }

  // How many tiles a tensor has; 0 if it is skipped or empty.
  int64_t tensor_tiles(int64_t tensor_index) const {
    return tensor_tiles_[static_cast<size_t>(tensor_index)];
  }

  // Requires: 0 <= index < size(). Cost: logarithmic in the number of parts.
  Tile tile(int64_t index) const;

 private:
  // A plane that has bytes in the files.
  struct Run {
    int64_t first_tile;
    int64_t tile_units;  // Of each of its tiles but the last.
    int64_t unit_count;
    int32_t tensor_index;
    int32_t part_index;
    Plane plane;
  };

  void AddRun(int32_t tensor_index, int32_t part_index, Plane plane, int64_t tile_bytes);

  const LoadPlan* plan_;
  int64_t size_ = 0;
  std::vector<Run> runs_;  // By first_tile.
  std::vector<int64_t> tensor_tiles_;
};

}  // namespace nibble
