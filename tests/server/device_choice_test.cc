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
}

TEST(DeviceChoiceTest, RefusesWhatIsNotThere) {
  EXPECT_EQ(ChooseDeviceName("cuda:2", 2).status().code(), absl::StatusCode::kNotFound);
  for (const char* name : {"cuda", "cuda:", "cuda:-1", "cuda:01", "cuda:1x", "gpu", "HOST"}) {
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

}  // namespace
}  // namespace nibble
