#include "server/command_line/progress_bar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::HasSubstr;
using testing::Not;

const ProgressMoment kHalf = {"demo", 1'000'000'000, 2'000'000'000, 500e6};

TEST(ProgressBarTest, ShowsShareBytesRateAndTimeLeft) {
  EXPECT_EQ(RenderProgressBar(kHalf, 75),
            "demo  [##########----------]  50%  1.00 GB of 2.00 GB  0.50 GB/s  0:02 left");
}

TEST(ProgressBarTest, NeverExceedsTheWidth) {
  const ProgressMoment moment = {"a-model-with-a-long-name/and-more", 67'000'000, 67'500'000'000,
                                 123.0};
  for (size_t columns = 0; columns < 200; ++columns) {
    EXPECT_LE(RenderProgressBar(moment, columns).size(), columns);
  }
}

TEST(ProgressBarTest, GivesUpTheBarBeforeTheFigures) {
  const std::string line = RenderProgressBar(kHalf, 59);
  EXPECT_THAT(line, Not(HasSubstr("[")));
  EXPECT_EQ(line, "demo   50%  1.00 GB of 2.00 GB  0.50 GB/s  0:02 left");
}

TEST(ProgressBarTest, SaysHundredOnlyWhenDone) {
  EXPECT_THAT(RenderProgressBar({"m", 1'999'999'999, 2'000'000'000, 0}, 80), HasSubstr(" 99% "));
  EXPECT_THAT(RenderProgressBar({"m", 2'000'000'000, 2'000'000'000, 0}, 80), HasSubstr("100% "));
  EXPECT_THAT(RenderProgressBar({"m", 0, 0, 0}, 80), HasSubstr("100% ")) << "nothing to do";
}

TEST(ProgressBarTest, LeavesOutWhatIsNotKnown) {
  EXPECT_THAT(RenderProgressLine({"m", 0, 1000, 0}), Not(HasSubstr("left")));
}

TEST(ProgressBarTest, ShowsHours) {
  EXPECT_THAT(RenderProgressLine({"m", 0, 3'723'000'000, 1e6}), HasSubstr("1:02:03 left"));
}

TEST(RateMeterTest, MeasuresTheLastSeconds) {
  RateMeter meter;
  const absl::Time start = absl::UnixEpoch();
  EXPECT_EQ(meter.bytes_per_second(), 0);
  meter.Add(start, 0);
  EXPECT_EQ(meter.bytes_per_second(), 0);
  meter.Add(start + absl::Seconds(1), 1000);
  EXPECT_EQ(meter.bytes_per_second(), 1000);
  for (int second = 2; second <= 20; ++second) {
    meter.Add(start + absl::Seconds(second), 1000);
  }
  EXPECT_EQ(meter.bytes_per_second(), 0) << "a stall shows";
}

}  // namespace
}  // namespace nibble
