#include "loader/staging_ring.h"

#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "loader/load_plan.h"

namespace nibble {
namespace {

TEST(StagingRingTest, SlotsAndCellsOfAnyShapeLieWithinTheStagingAndApart) {
  for (const int64_t staging_bytes : {kStagingBytesMin, 3_MiB, kStagingBytesDefault}) {
    for (const int reader_count : {0, 1, 7, 1000}) {
      for (const DeviceTraits& traits : {kHostTraits, kCudaTraits}) {
        const StagingShape shape = ShapeStaging(traits, staging_bytes, reader_count, 64);
        EXPECT_GE(shape.slot_bytes, 64_KiB);
        EXPECT_LE(shape.reader_count, reader_count == 0 ? 64 : reader_count);
        const int64_t slots = int64_t{shape.reader_count} * shape.slots_per_reader;
        EXPECT_LE(slots * (shape.slot_bytes + 1024), staging_bytes);
      }
    }
  }
}

TEST(StagingRingTest, GivesEachReaderOfAHostDeviceOneSlotWithinItsCache) {
  const StagingShape shape = ShapeStaging(kHostTraits, kStagingBytesDefault, 0, 2);
  EXPECT_EQ(shape.reader_count, 2);
  EXPECT_EQ(shape.slots_per_reader, 1);
  EXPECT_LE(shape.slot_bytes, 1_MiB);
}

TEST(StagingRingTest, GivesEachReaderOfAGpuTwoSlotsOfFourMebibytes) {
  const StagingShape shape = ShapeStaging(kCudaTraits, kStagingBytesDefault, 0, 16);
  EXPECT_EQ(shape.reader_count, 8);
  EXPECT_EQ(shape.slots_per_reader, 2);
  EXPECT_EQ(shape.slot_bytes, 4_MiB);
}

TEST(StagingRingTest, SlotsOnTheHostAreTheStagingItself) {
  const std::unique_ptr<Device> device = OpenHostDevice(1_MiB);
  VramBudget budget(1_MiB);
  PurposeBytes bytes;
  bytes[Purpose::kStaging] = 1_MiB;
  absl::StatusOr<VramBudget::Reservation> reservation = budget.Reserve("model", bytes);
  ASSERT_TRUE(reservation.ok());
  const StagingShape shape = ShapeStaging(kHostTraits, 1_MiB, 3, 8);
  const absl::StatusOr<StagingRing> ring =
      StagingRing::Allocate(*device, *reservation, 1_MiB, 0, shape);
  ASSERT_TRUE(ring.ok());
  EXPECT_EQ(device->host_bytes(), 0);
  std::set<const std::byte*> starts;
  for (int reader = 0; reader < shape.reader_count; ++reader) {
    const StagingRing::Slot slot = ring->slot(reader, 0);
    EXPECT_EQ(device->HostView(slot.device).data(), slot.host.data());
    EXPECT_EQ(device->HostView(slot.device_cell).data(), slot.host_cell.data());
    EXPECT_EQ(std::ssize(slot.host), shape.slot_bytes);
    starts.insert(slot.host.data());
    starts.insert(slot.host_cell.data());
  }
  EXPECT_EQ(starts.size(), 6);
}

}  // namespace
}  // namespace nibble
