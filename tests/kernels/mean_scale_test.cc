// The mean of scales: the same bits on every device, in the order that scale_format.h fixes.

#include <cfloat>
#include <limits>

#include "kernels/scale_quantize_ref.h"
#include "tests/kernels/scale_fixture.h"

namespace nibble {
namespace {

class MeanScaleTest : public ScaleTest {};
INSTANTIATE_TEST_SUITE_P(Host, MeanScaleTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, MeanScaleTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST_P(MeanScaleTest, TakesTheMeanInTheSameOrderEverywhere) {
  for (const int64_t count : {1, 2, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097, 8191, 8192,
                              8193, 12288 + 77, 300007}) {
    for (const int64_t skew : {0, 1, 3}) {
      const std::vector<float> scales = LikeScales(count, static_cast<uint32_t>(count));
      const float expected = MeanScaleRef(scales.data(), count);
      EXPECT_EQ(std::bit_cast<uint32_t>(MeanScale(scales, skew)), std::bit_cast<uint32_t>(expected))
          << count << " scales, skew " << skew;
    }
  }
}

// A float of 2^60 swallows a 1 that is added to it in fp64, so these means tell who met whom.
TEST_P(MeanScaleTest, AddsALanesScalesInTurnAndThenTheLanes) {
  std::vector<float> same_lane(2049, 0.0f);
  same_lane[0] = 0x1p60f;
  same_lane[1024] = 1.0f;
  same_lane[2048] = -0x1p60f;
  EXPECT_EQ(MeanScale(same_lane), 0.0f);
  std::vector<float> next_lane(2049, 0.0f);
  next_lane[0] = 0x1p60f;
  next_lane[1025] = 1.0f;
  next_lane[2048] = -0x1p60f;
  EXPECT_EQ(MeanScale(next_lane), 1.0f / 2049);
  std::vector<float> lanes_that_meet_first(1024, 0.0f);
  lanes_that_meet_first[3] = 0x1p60f;
  lanes_that_meet_first[3 + 256] = 1.0f;
  lanes_that_meet_first[3 + 512] = -0x1p60f;
  EXPECT_EQ(MeanScale(lanes_that_meet_first), 1.0f / 1024);
}

// A sum of b positive numbers in this order is within (b / 1024 + 10) * 2^-53 of itself: far less
// than the fp32 rounding that follows. long double has 11 more bits, enough for the comparison.
TEST_P(MeanScaleTest, RoundsTheExactMean) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    const std::vector<float> scales = LikeScales(1000 + 37 * seed, seed);
    long double sum = 0;
    for (const float scale : scales) {
      sum += static_cast<long double>(scale);
    }
    const long double exact = sum / static_cast<long double>(scales.size());
    const float found = MeanScale(scales);
    const float ulp = std::nextafter(found, kInf) - found;
    const long double error = std::fabs(static_cast<long double>(found) - exact);
    EXPECT_LE(error, static_cast<long double>(ulp) * (0.5L + 0x1p-20L)) << "seed " << seed;
  }
}

TEST_P(MeanScaleTest, TakesTheMeanOfEveryKindOfScale) {
  EXPECT_EQ(MeanScale({}), 0.0f);
  EXPECT_EQ(MeanScale({1.0f, 2.0f, 3.0f, 4.0f}), 2.5f);
  EXPECT_EQ(MeanScale(std::vector<float>(5000, 0.0f)), 0.0f);
  EXPECT_EQ(MeanScale(std::vector<float>(5000, FLT_MAX)), FLT_MAX);
  EXPECT_EQ(MeanScale(std::vector<float>(3, 0x1p-140f)), 0x1p-140f);
  EXPECT_EQ(MeanScale({1.0f, kInf}), kInf);
  EXPECT_EQ(std::bit_cast<uint32_t>(MeanScale({1.0f, NAN})), kCanonicalNanBits);
  EXPECT_EQ(std::bit_cast<uint32_t>(MeanScale({-kInf, kInf})), kCanonicalNanBits);
}

}  // namespace
}  // namespace nibble
