#include "tests/support/faulty_device.h"

#include <array>

#include "gtest/gtest.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

constexpr std::array<std::byte, 128> kSource = {};

// Makes one call of every kind that can fail, stopping at the first error.
absl::Status CallEverything(Device& device) {
  absl::Status status = device.QueryMemory().status();
  auto queue = device.NewQueue();
  status.Update(queue.status());
  auto event = device.NewEvent();
  status.Update(event.status());
  auto span = device.Allocate(4_KiB);
  status.Update(span.status());
  auto host = device.AllocateHost(4_KiB);
  status.Update(host.status());
  if (status.ok()) {
    const QuantizeArgs args = {.element_count = 64,
                               .source = span->Slice(0, 128),
                               .codes = span->Slice(128, 32),
                               .scales = span->Slice(160, 4),
                               .first_non_finite = {}};
    status.Update((*queue)->CopyToDevice(kSource, span->Slice(0, 128)));
    status.Update(device.ops().Quantize(**queue, args));
    status.Update((*queue)->CopyOnDevice(span->Slice(0, 128), span->Slice(1024, 128)));
    status.Update((*queue)->CopyToHost(span->Slice(0, 128), host->subspan(0, 128)));
    status.Update((*queue)->Record(**event));
    status.Update((*event)->Wait());
    status.Update((*queue)->Synchronize());
  }
  if (span.ok()) {
    device.Free(*span);
  }
  if (host.ok()) {
    device.FreeHost(*host);
  }
  return status;
}

TEST(FaultyDeviceTest, PassesEverythingOnWhenNoCallIsChosen) {
  const auto host = OpenHostDevice(1_MiB);
  FaultyDevice faulty(*host);
  EXPECT_TRUE(CallEverything(faulty).ok());
  EXPECT_EQ(faulty.calls(), 12);
  EXPECT_FALSE(faulty.has_failed());
}

TEST(FaultyDeviceTest, FailsEachCallInTurn) {
  const auto host = OpenHostDevice(1_MiB);
  FaultyDevice faulty(*host);
  std::vector<std::string> failed;
  for (int64_t number = 1;; ++number) {
    faulty.FailCall(number);
    const absl::Status status = CallEverything(faulty);
    EXPECT_EQ(faulty.live_objects(), 0);
    EXPECT_EQ(status.ok(), !faulty.has_failed());
    if (!faulty.has_failed()) {
      break;
    }
    failed.push_back(faulty.failed_call());
  }
  EXPECT_EQ(failed,
            (std::vector<std::string>{"QueryMemory", "NewQueue", "NewEvent", "Allocate",
                                      "AllocateHost", "CopyToDevice", "Quantize", "CopyOnDevice",
                                      "CopyToHost", "Record", "Event::Wait", "Synchronize"}));
}

TEST(FaultyDeviceTest, RefusesAnAllocationAsAFullDeviceDoes) {
  const auto host = OpenHostDevice(1_MiB);
  FaultyDevice faulty(*host);
  faulty.FailCall(1);
  const absl::Status status = faulty.Allocate(4_KiB).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(status).reason, "DEVICE_MEMORY_TAKEN");
}

}  // namespace
}  // namespace nibble
