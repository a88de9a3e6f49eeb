#include "loader/scale_scratch.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"

namespace nibble {
namespace {

Tile TileOf(int32_t tensor_index, int64_t tiles_of_plane = 1) {
  Tile tile;
  tile.tensor_index = tensor_index;
  tile.tiles_of_plane = tiles_of_plane;
  return tile;
}

TEST(ScaleScratchTest, LendsEachPartOnePieceThatOverlapsNoOther) {
  ScaleScratch scratch(DeviceSpan(4096, 1024));
  const DeviceSpan first = scratch.TryLend(TileOf(1, 2), 300);
  const DeviceSpan second = scratch.TryLend(TileOf(2), 512);
  EXPECT_EQ(first, DeviceSpan(4096, 300));
  EXPECT_EQ(second, DeviceSpan(4096 + 512, 512));  // 300 rounded up to 256s.
  EXPECT_EQ(scratch.TryLend(TileOf(1, 2), 300), first);
  EXPECT_TRUE(scratch.TryLend(TileOf(3), 1).empty());
}

TEST(ScaleScratchTest, SaysWhichTileCompletesItsPart) {
  ScaleScratch scratch(DeviceSpan(0, 1024));
  scratch.TryLend(TileOf(1, 3), 4);
  EXPECT_FALSE(scratch.CountDone(TileOf(1, 3)));
  EXPECT_FALSE(scratch.CountDone(TileOf(1, 3)));
  EXPECT_TRUE(scratch.CountDone(TileOf(1, 3)));
}

TEST(ScaleScratchTest, UsesGapsAgain) {
  ScaleScratch scratch(DeviceSpan(0, 1024));
  scratch.TryLend(TileOf(1), 256);
  scratch.TryLend(TileOf(2), 256);
  scratch.TryLend(TileOf(3), 512);
  scratch.GiveBack(TileOf(1));
  EXPECT_TRUE(scratch.TryLend(TileOf(4), 257).empty());
  scratch.GiveBack(TileOf(2));
  EXPECT_EQ(scratch.TryLend(TileOf(4), 257), DeviceSpan(0, 257));
  EXPECT_TRUE(scratch.TryLend(TileOf(5), 1).empty());
}

TEST(ScaleScratchTest, AWaiterIsServedOnceThereIsRoom) {
  ScaleScratch scratch(DeviceSpan(0, 512));
  scratch.TryLend(TileOf(1), 512);
  DeviceSpan lent;
  std::thread waiter([&] { lent = scratch.Lend(TileOf(2), 512); });
  scratch.GiveBack(TileOf(1));
  waiter.join();
  EXPECT_EQ(lent, DeviceSpan(0, 512));
}

TEST(ScaleScratchTest, StopEndsAllWaiting) {
  ScaleScratch scratch(DeviceSpan(0, 512));
  scratch.TryLend(TileOf(1), 512);
  std::atomic<bool> empty = false;
  std::thread waiter([&] { empty = scratch.Lend(TileOf(2), 512).empty(); });
  scratch.Stop();
  waiter.join();
  EXPECT_TRUE(empty);
  EXPECT_TRUE(scratch.Lend(TileOf(3), 1).empty());
}

}  // namespace
}  // namespace nibble
