#include "loader/tile_list.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace nibble {
namespace {

LoadPlan PlanOfParts(int64_t block_size, Dtype dtype, const std::vector<int64_t>& part_elements) {
  LoadPlan plan;
  PlannedTensor skipped;
  skipped.loaded = false;
  skipped.source_dtype = Dtype::kI64;
  plan.tensors.push_back(skipped);
  PlannedTensor tensor;
  tensor.source_dtype = dtype;
  tensor.format = Format::kNf4;
  tensor.block_size = block_size;
  for (const int64_t elements : part_elements) {
    PlannedPart part;
    part.element_count = elements;
    tensor.parts.push_back(part);
  }
  plan.tensors.push_back(tensor);
  return plan;
}

TEST(TileListTest, CoversEveryElementOnceInOrderAndCutsOnBlocks) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kF32}) {
    for (const int64_t block_size : {32, 4096}) {
      const std::vector<int64_t> part_elements = {1, 0, 16'384, 100'001, 32'768};
      const LoadPlan plan = PlanOfParts(block_size, dtype, part_elements);
      const TileList tiles(plan, 65'536);
      std::vector<int64_t> covered(part_elements.size(), 0);
      int32_t last_part = 0;
      for (int64_t index = 0; index < tiles.size(); ++index) {
        const Tile tile = tiles.tile(index);
        EXPECT_EQ(tile.index, index);
        EXPECT_EQ(tile.tensor_index, 1);
        EXPECT_GE(tile.part_index, last_part);
        last_part = tile.part_index;
        int64_t& part_covered = covered[static_cast<size_t>(tile.part_index)];
        EXPECT_EQ(tile.first, part_covered);
        EXPECT_EQ(tile.first % block_size, 0);
        EXPECT_GT(tile.count, 0);
        EXPECT_LE(tile.count * DtypeBits(dtype) / 8, 65'536);
        part_covered += tile.count;
      }
      EXPECT_EQ(covered, part_elements);
      EXPECT_EQ(tiles.tensor_tiles(0), 0);
      EXPECT_EQ(tiles.tensor_tiles(1), tiles.size());
    }
  }
}

TEST(TileListTest, TakesNoMemoryByTheSizeOfTheSource) {
  // 2^60 bytes: as a list it would be 2^44 tiles.
  const LoadPlan plan = PlanOfParts(64, Dtype::kBf16, {int64_t{1} << 59});
  const TileList tiles(plan, 65'536);
  EXPECT_EQ(tiles.size(), int64_t{1} << 44);
  EXPECT_EQ(tiles.tile(tiles.size() - 1).first, (int64_t{1} << 59) - 32'768);
}

}  // namespace
}  // namespace nibble
