// How a tile of 8-bit floats (kernels/f8_format.h) lies in its staging slot, with the scales that
// it is multiplied by:
//
//   | elements: F8 [n] | scales of the rows that it touches | elements: fp32 [n], if quantized |
//
// Each begins on 256 bytes. What is kept is multiplied out to its place in the slab instead.

#pragma once

#include <cstdint>

#include "kernels/f8_format.h"
#include "loader/load_plan.h"

namespace nibble {

// What such a tile is, and where its parts lie. The scales that it needs are contiguous in the
// file.
struct F8Tile {
  F8Range range;
  int64_t scales_file_offset = 0;  // From the start of their shard.
  int64_t scales_bytes = 0;
  int64_t scales_offset = 0;  // In the slot.
  int64_t expanded_offset = 0;
};

// The most elements that fit in `slot_bytes`, wherever in the tensor they lie; 0 if none do.
//
// Requires: tensor.form is kF8.
int64_t F8TileElements(const PlannedTensor& tensor, int64_t slot_bytes);

// `first_element` is that of the tile within the tensor.
//
// Requires: tensor.form is kF8; 0 < count <= F8TileElements(tensor, slot_bytes).
F8Tile PlaceF8Tile(const PlannedTensor& tensor, int64_t first_element, int64_t count);

}  // namespace nibble
