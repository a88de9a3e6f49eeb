#include "server/engine/state_snapshots.h"

#include "gtest/gtest.h"

namespace nibble {
namespace {

TEST(StateSnapshotsTest, KeepsTheLastUsed) {
  StateSnapshots snapshots(8, 2);
  EXPECT_FALSE(snapshots.Has(1));
  const int32_t first = snapshots.Keep(1);
  const int32_t second = snapshots.Keep(2);
  EXPECT_EQ(first + second, 8 + 9);
  EXPECT_NE(first, second);
  EXPECT_EQ(snapshots.Use(1), first);
  // 2 was used longest ago.
  EXPECT_EQ(snapshots.Keep(3), second);
  EXPECT_FALSE(snapshots.Has(2));
  EXPECT_TRUE(snapshots.Has(1));
  EXPECT_EQ(snapshots.Use(3), second);
}

}  // namespace
}  // namespace nibble
