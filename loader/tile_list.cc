#include "loader/tile_list.h"

#include <algorithm>

#include "kernels/check.h"
#include "loader/quantization_policy.h"

namespace nibble {

TileList::TileList(const LoadPlan& plan, int64_t tile_bytes)
    : plan_(&plan), tensor_tiles_(plan.tensors.size()) {
  const int64_t block_size = plan.quantization.block_size;
  for (size_t tensor_index = 0; tensor_index < plan.tensors.size(); ++tensor_index) {
    const PlannedTensor& tensor = plan.tensors[tensor_index];
    if (!tensor.loaded) {
      continue;
    }
    const int64_t tile_elements =
        tile_bytes / BytesPerElement(SourceType(tensor)) / block_size * block_size;
    Check(tile_elements > 0, "a tile holds a block");
    for (size_t part_index = 0; part_index < tensor.parts.size(); ++part_index) {
      const int64_t count = CeilDivide(tensor.parts[part_index].element_count, tile_elements);
      if (count > 0) {
        runs_.push_back({size_, tile_elements, static_cast<int32_t>(tensor_index),
                         static_cast<int32_t>(part_index)});
        tensor_tiles_[tensor_index] += count;
        size_ += count;
      }
    }
  }
}

Tile TileList::tile(int64_t index) const {
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), index,
                       [](int64_t wanted, const Run& run) { return wanted < run.first_tile; });
  const Run& run = *std::prev(after);
  const PlannedTensor& tensor = plan_->tensors[static_cast<size_t>(run.tensor_index)];
  const PlannedPart& part = tensor.parts[static_cast<size_t>(run.part_index)];
  Tile tile;
  tile.index = index;
  tile.tensor_index = run.tensor_index;
  tile.part_index = run.part_index;
  tile.first_element = (index - run.first_tile) * run.tile_elements;
  tile.element_count = std::min(run.tile_elements, part.element_count - tile.first_element);
  return tile;
}

}  // namespace nibble
