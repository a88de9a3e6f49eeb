// The tiles of a load: the pieces in which a plan's parts are read, in the order of the files.

#pragma once

#include <cstdint>
#include <vector>

#include "loader/load_plan.h"

namespace nibble {

// What is read, quantized and placed at once: a run of whole blocks of one part (the part's last
// tile may end within a block), so that its bytes are those of quantizing the part in one go.
struct Tile {
  int64_t index = 0;
  int32_t tensor_index = 0;
  int32_t part_index = 0;
  int64_t first_element = 0;  // Within the part.
  int64_t element_count = 0;
};

// Cuts a plan into tiles without holding them: a 67 GB checkpoint has 130 000, and a plan must not
// cost host memory by the size of its source. Immutable; thread-safe.
class TileList {
 public:
  // Must not outlive `plan`. Requires: tile_bytes holds the largest block of the widest type.
  TileList(const LoadPlan& plan, int64_t tile_bytes);

  int64_t size() const { return size_; }

  // How many tiles a tensor has; 0 if it is skipped or empty.
  int64_t tensor_tiles(int64_t tensor_index) const {
    return tensor_tiles_[static_cast<size_t>(tensor_index)];
  }

  // Requires: 0 <= index < size(). Cost: logarithmic in the number of parts.
  Tile tile(int64_t index) const;

 private:
  // A part that has elements.
  struct Run {
    int64_t first_tile;
    int64_t tile_elements;  // Of each of its tiles but the last.
    int32_t tensor_index;
    int32_t part_index;
  };

  const LoadPlan* plan_;
  int64_t size_ = 0;
  std::vector<Run> runs_;  // By first_tile.
  std::vector<int64_t> tensor_tiles_;
};

}  // namespace nibble
