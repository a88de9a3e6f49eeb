// A load on every device: on the host in the unit tests, on the GPU in gpu_tests. What ends up in
// its memory is what the host device has, and the device has given what the ledger counts.

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "tests/kernels/device_fixture.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

// More than a device sets up by itself, to see that as many as were asked for are.
constexpr int kQueueCount = 24;

class DeviceLoadTest : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int64_t kStagingBytes = 8_MiB;  // At least 64 KiB for two slots of each reader.

  // Tensors of several tiles each, whatever the device cuts them to.
  DeviceLoadTest() {
    TinyLlamaShape shape;
    shape.hidden_size = 512;
    shape.intermediate_size = 1408;
    shape.vocabulary_size = 2048;
    TinyLlama(shape).Write(scratch_.path());
    checkpoint_ = *OpenForTest(scratch_.path());
  }

  void SetUp() override {
    if (GetParam() == "host") {
      device_ = OpenHostDevice(kTestDeviceBytes);
    } else {
      absl::StatusOr<std::unique_ptr<Device>> device =
          OpenCudaDevice(std::stoi(GetParam().substr(GetParam().find(':') + 1)), kQueueCount);
      ASSERT_TRUE(device.ok()) << device.status();
      device_ = *std::move(device);
    }
    plan_ = PlanForTest(checkpoint_, device_->traits(), {}, kStagingBytes);
  }

  int64_t FreeBytes() const { return device_->QueryMemory()->free_bytes; }

  ScratchDirectory scratch_;
  Checkpoint checkpoint_;
  std::unique_ptr<Device> device_;
  std::shared_ptr<const LoadPlan> plan_;
  VramBudget budget_{kTestDeviceBytes};
};

TEST_P(DeviceLoadTest, LeavesTheStandardBytesOfTheHostDevice) {
  const std::unique_ptr<Device> host = OpenHostDevice(kTestDeviceBytes);
  VramBudget host_budget(kTestDeviceBytes);
  NullObserver observer;
  const auto expected =
      LoadForTest(*host, host_budget, checkpoint_,
                  PlanForTest(checkpoint_, host->traits(), {}, kStagingBytes), observer);
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto loaded = LoadForTest(*device_, budget_, checkpoint_, plan_, observer);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::vector<PlannedTensor>& host_tensors = (*expected)->plan().tensors;
  ASSERT_EQ(plan_->tensors.size(), host_tensors.size());
  for (size_t index = 0; index < plan_->tensors.size(); ++index) {
    const PlannedTensor& tensor = plan_->tensors[index];
    ASSERT_EQ(tensor.parts.size(), host_tensors[index].parts.size());
    for (size_t part = 0; part < tensor.parts.size(); ++part) {
      EXPECT_TRUE(
          LoadedPart(*device_, **loaded, tensor, tensor.parts[part]) ==
          LoadedPart(*host, **expected, host_tensors[index], host_tensors[index].parts[part]))
          << tensor.name;
    }
  }
}

// Looks at ledger and device when the first tile is done.
class LedgerObserver : public NullObserver {
 public:
  LedgerObserver(const Device& device, const VramBudget& budget)
      : device_(device), budget_(budget) {}

  void OnProgress(const LoadProgress&) override {
    if (!looked_.exchange(true)) {
      allocated_bytes = budget_.Snapshot().allocated.total();
      free_bytes = device_.QueryMemory()->free_bytes;
    }
  }

  int64_t allocated_bytes = 0;
  int64_t free_bytes = 0;

 private:
  const Device& device_;
  const VramBudget& budget_;
  std::atomic<bool> looked_ = false;
};

TEST_P(DeviceLoadTest, TakesOfTheDeviceWhatTheLedgerCounts) {
  const int64_t free_bytes = FreeBytes();
  LedgerObserver observer(*device_, budget_);
  auto weights =
      LoadForTest(*device_, budget_, checkpoint_, plan_, observer, /*reader_count=*/kQueueCount);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(observer.allocated_bytes, plan_->peak_bytes());
  EXPECT_EQ(free_bytes - observer.free_bytes, plan_->peak_bytes());
  EXPECT_EQ(budget_.Snapshot().allocated.total(), plan_->resident_bytes());
  EXPECT_EQ(free_bytes - FreeBytes(), plan_->resident_bytes());
  weights->reset();
  EXPECT_EQ(budget_.Snapshot().allocated.total(), 0);
  EXPECT_EQ(FreeBytes(), free_bytes);
}

INSTANTIATE_TEST_SUITE_P(Host, DeviceLoadTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, DeviceLoadTest, testing::ValuesIn(CudaDevices()), DeviceTestName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeviceLoadTest);

}  // namespace
}  // namespace nibble
