// How a tile of 8-bit floats lies in its staging slot, with the scales that it is multiplied by:
//
//   | elements: F8 [n] | scales of the rows that it touches | elements: fp32 [n], if quantized |
//
// Each begins on 256 bytes. What is kept is multiplied out to its place in the slab instead.

#pragma once

#include <cstdint>

#include "loader/load_plan.h"

namespace nibble {

// Where the parts of such a tile lie, and the scales that it needs. Scales are row-major in the file:
// those of a run of rows are contiguous.
struct F8Tile {
  int64_t scales_file_offset = 0;  // From the start of their shard.
  int64_t scales_bytes = 0;
  int64_t scales_offset = 0;  // In the slot.
  int64_t expanded_offset = 0;
};

// The most elements that fit in `slot_bytes`, wherever in the tensor they lie; 0 if none do.
//
// Requires: tensor.form is kF8.
int64_t F8TileElements(const PlannedTensor& tensor, int64_t slot_bytes);

// Requires: tensor.form is kF8; 0 < count <= F8TileElements(tensor, slot_bytes).
F8Tile PlaceF8Tile(const PlannedTensor& tensor, int64_t first_element, int64_t count);

}  // namespace nibble
