#include "server/device_room.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 600 of 1000 bytes of runtime are in use, 300 of a model are allocated.
Device::Memory MemoryOf(int64_t free_bytes) { return {5000, free_bytes, 900}; }

LedgerSnapshot Ledger() {
  LedgerSnapshot ledger;
  ledger.reserved[Purpose::kRuntime] = 1000;
  ledger.reserved[Purpose::kWeights] = 300;
  ledger.allocated[Purpose::kWeights] = 300;
  return ledger;
}

TEST(DeviceRoomTest, TakesWhatIsThere) {
  EXPECT_TRUE(CheckDeviceHasRoom({"m", "cuda:0", 2000, 400}, MemoryOf(2000), Ledger()).ok());
}

TEST(DeviceRoomTest, RefusesWhatOthersHaveTaken) {
  const absl::Status status =
      CheckDeviceHasRoom({"m", "cuda:0", 2001, 0}, MemoryOf(2000), Ledger());
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(DetailsOf(status).reason, "DEVICE_MEMORY_TAKEN");
  EXPECT_EQ(DetailsOf(status).needed_bytes, 2001);
  EXPECT_EQ(DetailsOf(status).available_bytes, 2000);
}

TEST(DeviceRoomTest, RefusesRecordedStepsBeyondRuntime) {
  const absl::Status status =
      CheckDeviceHasRoom({"m", "cuda:0", 2000, 401}, MemoryOf(2000), Ledger());
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(DetailsOf(status).reason, "RUNTIME_RESERVE_EXCEEDED");
  EXPECT_EQ(DetailsOf(status).available_bytes, 400);
  EXPECT_THAT(DetailsOf(status).remedies,
              ElementsAre(HasSubstr("--runtime-reserve of at least 1001")));
}

TEST(DeviceRoomTest, LeavesRuntimeAloneForWhichNothingIsSetAside) {
  LedgerSnapshot ledger = Ledger();
  ledger.reserved[Purpose::kRuntime] = 0;
  EXPECT_TRUE(CheckDeviceHasRoom({"m", "cuda:0", 2000, 100000}, MemoryOf(2000), ledger).ok());
}

TEST(DeviceRoomTest, CannotJudgeRuntimeWhereTheDeviceDoesNotTell) {
  Device::Memory memory = MemoryOf(2000);
  memory.process_bytes.reset();
  EXPECT_TRUE(CheckDeviceHasRoom({"m", "cuda:0", 2000, 100000}, memory, Ledger()).ok());
}

}  // namespace
}  // namespace nibble
