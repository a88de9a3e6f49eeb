#include "loader/piece_index.h"

namespace nibble {

PieceIndex::PieceIndex(const LoadPlan& plan) {
  first_parts_.reserve(plan.tensors.size());
  for (const PlannedTensor& tensor : plan.tensors) {
    first_parts_.push_back(firsts_.size());
    for (const PlannedPart& part : tensor.parts) {
      std::array<int64_t, kPlaneCount>& first = firsts_.emplace_back();
      for (const Plane plane : kPlanes) {
        first[static_cast<size_t>(plane)] = size_;
        size_ += PieceCount(PlaneBytes(tensor, part, plane));
      }
    }
  }
}

}  // namespace nibble
