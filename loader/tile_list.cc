#include "loader/tile_list.h"

#include <algorithm>

#include "kernels/check.h"
#include "loader/f8_tile.h"

namespace nibble {
namespace {

int64_t UnitCount(const PlannedTensor& tensor, const PlannedPart& part, Plane plane) {
  if (tensor.form == SourceForm::kFourBit) {
    return PlaneBytes(tensor, part, plane) / PlaneUnitBytes(tensor, plane);
  }
  return plane == Plane::kData ? part.element_count : 0;
}

// Units of a tile of `tile_bytes`.
int64_t TileUnits(const PlannedTensor& tensor, Plane plane, int64_t tile_bytes) {
  const int64_t unit_bytes = FileUnitBytes(tensor, plane);
  if (IsCopied(tensor)) {
    return RoundDown(tile_bytes, kCopyTileAlignmentBytes) / unit_bytes;
  }
  return RoundDown(
      tensor.form == SourceForm::kF8 ? F8TileElements(tensor, tile_bytes) : tile_bytes / unit_bytes,
      tensor.block_size);
}

}  // namespace

int64_t FileUnitBytes(const PlannedTensor& tensor, Plane plane) {
  return tensor.form == SourceForm::kFourBit ? PlaneUnitBytes(tensor, plane)
                                             : DtypeBits(tensor.source_dtype) / 8;
}

bool IsCopied(const PlannedTensor& tensor) {
  return tensor.form == SourceForm::kFourBit ||
         (tensor.form == SourceForm::kElements && !tensor.quantized());
}

TileList::TileList(const LoadPlan& plan, int64_t tile_bytes)
    : plan_(&plan), tensor_tiles_(plan.tensors.size()) {
  Check(tile_bytes >= kTileBytesMin, "a tile holds a block");
  for (size_t tensor_index = 0; tensor_index < plan.tensors.size(); ++tensor_index) {
    const PlannedTensor& tensor = plan.tensors[tensor_index];
    if (!tensor.loaded) {
      continue;
    }
    for (size_t part_index = 0; part_index < tensor.parts.size(); ++part_index) {
      for (const Plane plane : kPlanes) {
        AddRun(static_cast<int32_t>(tensor_index), static_cast<int32_t>(part_index), plane,
               tile_bytes);
      }
    }
  }
}

void TileList::AddRun(int32_t tensor_index, int32_t part_index, Plane plane, int64_t tile_bytes) {
  const PlannedTensor& tensor = plan_->tensors[static_cast<size_t>(tensor_index)];
  const PlannedPart& part = tensor.parts[static_cast<size_t>(part_index)];
  const int64_t unit_count = UnitCount(tensor, part, plane);
  if (unit_count == 0) {
    return;
  }
  const int64_t tile_units = TileUnits(tensor, plane, tile_bytes);
  Check(tile_units > 0, "a tile holds a unit");
  runs_.push_back({size_, tile_units, unit_count, tensor_index, part_index, plane});
  const int64_t count = CeilDivide(unit_count, tile_units);
  tensor_tiles_[static_cast<size_t>(tensor_index)] += count;
  size_ += count;
}

Tile TileList::tile(int64_t index) const {
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), index,
                       [](int64_t wanted, const Run& run) { return wanted < run.first_tile; });
  const Run& run = *std::prev(after);
  Tile tile;
  tile.index = index;
  tile.tensor_index = run.tensor_index;
  tile.part_index = run.part_index;
  tile.plane = run.plane;
  tile.first = (index - run.first_tile) * run.tile_units;
  tile.count = std::min(run.tile_units, run.unit_count - tile.first);
  tile.tiles_of_plane = CeilDivide(run.unit_count, run.tile_units);
  return tile;
}

}  // namespace nibble
