#include "server/device_choice.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kCard = 100'000'000'000;

TEST(DeviceChoiceTest, PrefersAGpu) {
  EXPECT_EQ(*ChooseDeviceName("", 2), "cuda:0");
  EXPECT_EQ(*ChooseDeviceName("", 0), "host");
  EXPECT_EQ(*ChooseDeviceName("host", 2), "host");
  EXPECT_EQ(*ChooseDeviceName("cuda:1", 2), "cuda:1");
  EXPECT_EQ(*ChooseDeviceName("cuda", 2), "cuda:0");
}

TEST(DeviceChoiceTest, RefusesWhatIsNotThere) {
  EXPECT_EQ(ChooseDeviceName("cuda:2", 2).status().code(), absl::StatusCode::kNotFound);
  for (const char* name : {"cuda:", "cuda:-1", "cuda:01", "cuda:1x", "gpu", "HOST"}) {
    EXPECT_EQ(ChooseDeviceName(name, 2).status().code(), absl::StatusCode::kInvalidArgument)
        << name;
  }
}

TEST(DeviceChoiceTest, TakesMostOfACardAndHalfOfAHost) {
  EXPECT_EQ(*ChooseBudget({}, DeviceKind::kCuda, kCard, 1_GiB), 90'000'000'000);
  EXPECT_EQ(*ChooseBudget({}, DeviceKind::kHost, kCard, 0), 50'000'000'000);
}

TEST(DeviceChoiceTest, TakesWhatTheOperatorSays) {
  DaemonOptions bytes;
  bytes.vram_budget_bytes = 32_GiB;
  EXPECT_EQ(*ChooseBudget(bytes, DeviceKind::kCuda, kCard, 1_GiB), 32_GiB);
  DaemonOptions ratio;
  ratio.vram_budget_ratio = 0.25;
  EXPECT_EQ(*ChooseBudget(ratio, DeviceKind::kHost, kCard, 0), kCard / 4);
}

TEST(DeviceChoiceTest, RefusesABudgetThatHoldsNothing) {
  for (const int64_t bytes : {int64_t{0}, int64_t{-1}, 1_GiB}) {
    DaemonOptions options;
    options.vram_budget_bytes = bytes;
    const absl::StatusOr<int64_t> budget = ChooseBudget(options, DeviceKind::kCuda, kCard, 1_GiB);
    EXPECT_EQ(budget.status().code(), absl::StatusCode::kInvalidArgument) << bytes;
    EXPECT_THAT(budget.status().message(), HasSubstr("--vram-budget")) << bytes;
  }
  for (const double ratio : {0.0, -0.5, 1.01, std::nan("")}) {
    DaemonOptions options;
    options.vram_budget_ratio = ratio;
    EXPECT_FALSE(ChooseBudget(options, DeviceKind::kHost, kCard, 0).ok()) << ratio;
  }
}

TEST(DeviceChoiceTest, RefusesMoreThanACardHas) {
  DaemonOptions options;
  options.vram_budget_bytes = kCard + 1;
  EXPECT_FALSE(ChooseBudget(options, DeviceKind::kCuda, kCard, 1_GiB).ok());
  EXPECT_TRUE(ChooseBudget(options, DeviceKind::kHost, kCard, 0).ok()) << "a host may swap";
}

TEST(DeviceChoiceTest, CountsTheQueuesOfEveryReaderOfEveryLoad) {
  DaemonOptions options;  // 2 loads at a time, 8 readers if there are as many cores.
  EXPECT_EQ(*CudaQueueCount(options, 64), 16);
  EXPECT_EQ(*CudaQueueCount(options, 3), 6);
  options.reader_threads = 24;
  options.max_loads = 3;
  EXPECT_EQ(*CudaQueueCount(options, 3), 72);
  // Two slots of 64 KiB for each, at least, and 1 MiB holds no more than 4 pairs beside 512 cells
  // of 1 KiB.
  options.staging_bytes = kStagingBytesMin;
  EXPECT_EQ(*CudaQueueCount(options, 3), 3 * 4);
}

TEST(DeviceChoiceTest, CountsTheQueuesOfExportsAndOfTheCachesWriterWhereTheyAreOn) {
  DaemonOptions options;
  options.export_roots = {"/exports"};
  EXPECT_EQ(*CudaQueueCount(options, 64), 16 + 2) << "two exports run at a time";
  options.cache_dir = "/cache";
  EXPECT_EQ(*CudaQueueCount(options, 64), 16 + 2 + 1) << "entries are written one at a time";
  options.export_roots.clear();
  EXPECT_EQ(*CudaQueueCount(options, 64), 16 + 1);
}

TEST(DeviceChoiceTest, RefusesMoreQueuesThanACardHasUseFor) {
  DaemonOptions options;
  options.reader_threads = 256;
  options.max_loads = 2;
  EXPECT_EQ(*CudaQueueCount(options, 16), 512);
  options.max_loads = 3;
  const absl::Status status = CudaQueueCount(options, 16).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("--max-loads: expected at most 2"));
  options.max_loads = INT32_MAX;
  EXPECT_FALSE(CudaQueueCount(options, 16).ok());
}

}  // namespace
}  // namespace nibble
