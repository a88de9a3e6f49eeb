// The pieces of a plan's planes, numbered: what checksums of the quantized cache are kept by.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "loader/load_plan.h"
#include "loader/tile_list.h"

namespace nibble {

// How many pieces a plane has: kCopyTileAlignmentBytes each, counted from its start, the last one
// as long as is left.
constexpr int64_t PieceCount(int64_t plane_bytes) {
  return CeilDivide(plane_bytes, kCopyTileAlignmentBytes);
}

// Numbers them in the order of tensors, parts, planes. Immutable; thread-safe.
class PieceIndex {
 public:
  explicit PieceIndex(const LoadPlan& plan);

  int64_t size() const { return size_; }

  // The number of a plane's first piece.
  int64_t first(size_t tensor_index, size_t part_index, Plane plane) const {
    return firsts_[first_parts_[tensor_index] + part_index][static_cast<size_t>(plane)];
  }

 private:
  int64_t size_ = 0;
  std::vector<size_t> first_parts_;                       // Of each tensor, in firsts_.
  std::vector<std::array<int64_t, kPlaneCount>> firsts_;  // Of each part.
};

}  // namespace nibble
