// Double quantization on every device against the reference, hand-derived values and the rules of
// scale_format.h.

#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "kernels/gpu_reciprocal.h"
#include "kernels/scale_quantize_ref.h"
#include "tests/kernels/scale_fixture.h"

namespace nibble {
namespace {

class ScaleQuantizeTest : public ScaleTest {
 protected:
  void ExpectAsReference(const std::vector<float>& scales, float offset, int64_t skew = 0) {
    ScalePlanes expected = {std::vector<uint8_t>(scales.size()),
                            std::vector<float>(Blocks(scales.size()))};
    QuantizeScalesRef(scales.data(), std::ssize(scales), offset, expected.codes.data(),
                      expected.absmax2.data());
    const ScalePlanes found = QuantizeScales(scales, offset, skew);
    EXPECT_EQ(FirstDifference(found.absmax2, expected.absmax2), -1) << "absmax2 differs";
    if (is_host()) {
      EXPECT_EQ(FirstDifference(found.codes, expected.codes), -1) << "codes differ";
    } else {
      CountCodesAtThresholds(scales, offset, found, expected);
    }
  }

  void ExpectDequantizesAsReference(const ScalePlanes& planes, float offset,
                                    const std::vector<float>& map, int64_t skew = 0) {
    std::vector<float> expected(planes.codes.size());
    DequantizeScalesRef(planes.codes.data(), planes.absmax2.data(), offset, map.data(),
                        std::ssize(planes.codes), expected.data());
    EXPECT_EQ(FirstDifference(DequantizeScales(planes, offset, map, skew), expected), -1);
  }
};
INSTANTIATE_TEST_SUITE_P(Host, ScaleQuantizeTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, ScaleQuantizeTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  return Generate(count,
                  [&](int64_t) { return std::bit_cast<float>(static_cast<uint32_t>(random())); });
}

// formats.md's generator, whose order of operations decides the last bits: fp32, with fused
// multiply-adds where torch has them.
std::vector<float> GenerateMap() {
  std::vector<float> values = {0.0f, 1.0f};
  for (int i = 0; i < 7; ++i) {
    const int intervals = 1 << i;
    const float step = (1.0f - 0.1f) / static_cast<float>(intervals);
    const auto point = [&](int k) {
      return k < (intervals + 1) / 2 ? std::fma(step, static_cast<float>(k), 0.1f)
                                     : std::fma(-step, static_cast<float>(intervals - k), 1.0f);
    };
    for (int k = 0; k < intervals; ++k) {
      const float midpoint = (point(k) + point(k + 1)) / 2;
      const float value = midpoint * static_cast<float>(std::pow(10.0, i - 6));
      values.push_back(value);
      values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  return values;
}

TEST(ScaleFormatTest, HasTheMapOfTheGenerator) {
  EXPECT_EQ(FirstDifference(StandardMap(), GenerateMap()), -1);
}

TEST(ScaleFormatTest, HasThresholdsThatRise) {
  for (size_t i = 0; i + 1 < kScaleThresholds.size(); ++i) {
    EXPECT_LT(kScaleThresholds[i], kScaleThresholds[i + 1]) << i;
  }
}

TEST_P(ScaleQuantizeTest, EqualsTheReferenceAtEveryLengthAroundABlock) {
  for (const int64_t count :
       {0, 1, 2, 31, 32, 33, 255, 256, 257, 511, 512, 513, 2047, 2048, 2049, 5000}) {
    for (const int64_t skew : {0, 1, 5}) {
      const std::vector<float> scales = LikeScales(count, 7);
      SCOPED_TRACE(testing::Message() << count << " scales, skew " << skew);
      ExpectAsReference(scales, 0.05f, skew);
    }
  }
}

// Scales as they should not be: what a fast path might take for granted.
std::vector<std::function<float(int64_t)>> Structures() {
  return {
      [](int64_t) { return 0.0f; },
      [](int64_t) { return -0.0f; },
      [](int64_t) { return 0.05f; },                                   // Flat: the mean.
      [](int64_t i) { return static_cast<float>(i % 511) * 0.001f; },  // Ramp.
      [](int64_t i) { return i / 40 % 2 == 0 ? 0.5f : 0.125f; },       // Plateaus.
      [](int64_t i) { return i % 256 == 17 ? 1000.0f : 0.05f; },       // One outlier.
      [](int64_t i) { return static_cast<float>(i % 5) * 1e-41f; },    // Subnormal.
      [](int64_t i) { return i % 256 == 3 ? FLT_MIN : 2e-39f; },       // Nearly.
      [](int64_t i) { return i % 2 == 0 ? FLT_MAX : 1e38f; },          // Largest.
      [](int64_t i) { return i % 2 == 0 ? FLT_MAX : -FLT_MAX; },       // All NaN has the latter.
      [](int64_t i) { return i % 256 == 5 ? 0x1.02p126f : 1e36f; },    // 1 / s is subnormal.
      [](int64_t i) { return i % 300 == 50 ? NAN : static_cast<float>(i % 9); },
      [](int64_t i) { return i % 300 == 50 ? kInf : static_cast<float>(i % 9); },
      [](int64_t) { return NAN; },
      [](int64_t i) { return i % 3 == 0 ? kInf : -kInf; },
  };
}

TEST_P(ScaleQuantizeTest, EqualsTheReferenceOnScalesOfEveryStructure) {
  const auto structures = Structures();
  for (size_t index = 0; index < structures.size(); ++index) {
    for (const float offset : {0.0f, 0.05f, 1e38f, -FLT_MAX, kInf, NAN}) {
      SCOPED_TRACE(testing::Message() << "structure " << index << " offset " << offset);
      ExpectAsReference(Generate(1000, structures[index]), offset);
    }
  }
}

TEST_P(ScaleQuantizeTest, EqualsTheReferenceOnRandomBits) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    ExpectAsReference(RandomFloats(10000, seed), 0.0f);
  }
}

// Differences of every magnitude, down to nothing.
TEST_P(ScaleQuantizeTest, EqualsTheReferenceAtEveryExponent) {
  std::mt19937 random(4);
  for (int exponent = -148; exponent <= 127; ++exponent) {
    const std::vector<float> scales = Generate(700, [&](int64_t i) {
      const float mantissa = 1.0f + static_cast<float>(random() % 8191) / 8192;
      const int gap = i % 256 == 0 ? 0 : static_cast<int>(random() % 25);
      return (random() % 2 == 0 ? 1.0f : -1.0f) * std::ldexp(mantissa, exponent - gap);
    });
    SCOPED_TRACE(testing::Message() << "exponent " << exponent);
    ExpectAsReference(scales, 0.0f);
  }
}

// With offset 0 and a largest magnitude of 1 a scale is its own x.
TEST_P(ScaleQuantizeTest, PicksTheNearestValueAndTheEvenCodeBetweenTwo) {
  std::vector<float> scales;
  std::vector<int> expected;
  const auto add = [&](float x, int code) {
    if (scales.size() % 256 == 0) {
      scales.push_back(1.0f);
      expected.push_back(255);
    }
    scales.push_back(x);
    expected.push_back(code);
  };
  for (int code = 0; code < 255; ++code) {
    const float lower = kScaleMap[static_cast<size_t>(code)];
    const float upper = kScaleMap[static_cast<size_t>(code) + 1];
    const float midpoint = (lower + upper) * 0.5f;
    add(lower, code);
    add(std::nextafter(midpoint, -1.0f), code);
    add(midpoint, code % 2 == 0 ? code : code + 1);
    add(std::nextafter(midpoint, 1.0f), code + 1);
  }
  add(-1.0f, 0);
  add(0.0f, 127);
  add(-0.0f, 127);
  add(0x1p-140f, 127);
  const ScalePlanes found = QuantizeScales(scales, 0.0f);
  for (size_t i = 0; i < scales.size(); ++i) {
    EXPECT_EQ(int{found.codes[i]}, expected[i]) << scales[i];
  }
}

TEST_P(ScaleQuantizeTest, GivesABlockOfEqualScalesCodeZeroAndDecodesItToTheOffset) {
  const std::vector<float> scales(300, 0.25f);
  const ScalePlanes planes = QuantizeScales(scales, 0.25f);
  EXPECT_EQ(planes.codes, std::vector<uint8_t>(300, 0));
  EXPECT_EQ(planes.absmax2, std::vector<float>(2, 0.0f));
  EXPECT_EQ(DequantizeScales(planes, 0.25f, StandardMap()), scales);
}

TEST_P(ScaleQuantizeTest, GivesTilesTheBytesOfTheWhole) {
  const std::vector<float> whole = LikeScales(3000, 9);
  const ScalePlanes expected = QuantizeScales(whole, 0.05f);
  ScalePlanes joined;
  for (const auto& [begin, end] : {std::pair<int, int>{0, 256}, {256, 2048}, {2048, 3000}}) {
    const ScalePlanes tile =
        QuantizeScales(std::vector<float>(whole.begin() + begin, whole.begin() + end), 0.05f);
    joined.codes.insert(joined.codes.end(), tile.codes.begin(), tile.codes.end());
    joined.absmax2.insert(joined.absmax2.end(), tile.absmax2.begin(), tile.absmax2.end());
  }
  EXPECT_EQ(joined.codes, expected.codes);
  EXPECT_EQ(joined.absmax2, expected.absmax2);
}

// x is at most half a gap from its value; the widest gap, next to 1, is 0.9 / 64. The differences
// and the two roundings of decoding add an ulp of the largest scale each.
TEST_P(ScaleQuantizeTest, ComesBackWithinHalfAGapOfTheMap) {
  const std::vector<float> scales = LikeScales(10000, 3);
  const float offset = MeanScale(scales);
  const ScalePlanes planes = QuantizeScales(scales, offset);
  const std::vector<float> found = DequantizeScales(planes, offset, StandardMap());
  const float ulp = *std::max_element(scales.begin(), scales.end()) * FLT_EPSILON;
  for (size_t i = 0; i < scales.size(); ++i) {
    EXPECT_NEAR(found[i], scales[i], planes.absmax2[i / 256] * 0.9f / 64 / 2 + 4 * ulp) << i;
  }
}

TEST_P(ScaleQuantizeTest, DequantizesAnyPlanesWithAnyMapAsTheReference) {
  for (const int64_t count : {1, 255, 256, 257, 5000}) {
    std::mt19937 random(17);
    ScalePlanes planes;
    planes.codes.resize(static_cast<size_t>(count));
    std::generate(planes.codes.begin(), planes.codes.end(),
                  [&] { return static_cast<uint8_t>(random()); });
    for (uint32_t seed = 1; seed <= 20; ++seed) {
      planes.absmax2 = RandomFloats(ScaleBlockCount(count), seed);
      for (const float offset : {0.05f, 0.0f, -0x1p-130f, FLT_MAX, kInf, NAN}) {
        SCOPED_TRACE(testing::Message() << count << " scales, offset " << offset);
        ExpectDequantizesAsReference(planes, offset, StandardMap());
        ExpectDequantizesAsReference(planes, offset, RandomFloats(256, seed + 100), 1);
      }
    }
  }
}

// Fused, the product's rounding error would remain: 0.1f * 0.1f is not an fp32 number.
TEST_P(ScaleQuantizeTest, RoundsTheProductBeforeItAddsTheOffset) {
  const std::vector<float> map(256, 0.1f);
  const float product = 0.1f * 0.1f;
  ASSERT_NE(std::fma(0.1f, 0.1f, -product), 0.0f);
  const ScalePlanes planes = {std::vector<uint8_t>(256, 9), {0.1f}};
  EXPECT_EQ(DequantizeScales(planes, -product, map), std::vector<float>(256, 0.0f));
}

TEST_P(ScaleQuantizeTest, RefusesSpansThatDoNotFitTheCount) {
  const QuantizeScalesArgs quantize = {300, Cut(1200), Cut(4), Cut(300), Cut(8)};
  const DequantizeScalesArgs dequantize = {300, Cut(300), Cut(8), Cut(4), Cut(1024), Cut(1200)};
  const MeanScaleArgs mean = {300, Cut(1200), Cut(4)};
  Ops& ops = device_->ops();
  Upload(std::vector<std::byte>(static_cast<size_t>(used_bytes_)), memory_.Slice(0, used_bytes_));
  EXPECT_TRUE(ops.QuantizeScales(*queue_, quantize).ok());
  EXPECT_TRUE(ops.DequantizeScales(*queue_, dequantize).ok());
  EXPECT_TRUE(ops.MeanScale(*queue_, mean).ok());
  for (const int64_t count :
       {int64_t{-1}, int64_t{299}, int64_t{301}, std::numeric_limits<int64_t>::max()}) {
    QuantizeScalesArgs bad_quantize = quantize;
    DequantizeScalesArgs bad_dequantize = dequantize;
    MeanScaleArgs bad_mean = mean;
    bad_quantize.scale_count = bad_dequantize.scale_count = bad_mean.scale_count = count;
    EXPECT_TRUE(absl::IsInvalidArgument(ops.QuantizeScales(*queue_, bad_quantize))) << count;
    EXPECT_TRUE(absl::IsInvalidArgument(ops.DequantizeScales(*queue_, bad_dequantize))) << count;
    EXPECT_TRUE(absl::IsInvalidArgument(ops.MeanScale(*queue_, bad_mean))) << count;
  }
  DequantizeScalesArgs short_map = dequantize;
  short_map.map = short_map.map.Slice(0, 1020);
  EXPECT_TRUE(absl::IsInvalidArgument(ops.DequantizeScales(*queue_, short_map)));
  QuantizeScalesArgs short_absmax2 = quantize;
  short_absmax2.absmax2 = short_absmax2.absmax2.Slice(0, 4);
  EXPECT_TRUE(absl::IsInvalidArgument(ops.QuantizeScales(*queue_, short_absmax2)));
  MeanScaleArgs unaligned = mean;
  unaligned.offset = DeviceSpan(mean.offset.address() + 1, 4);
  EXPECT_TRUE(absl::IsInvalidArgument(ops.MeanScale(*queue_, unaligned)));
}

}  // namespace
}  // namespace nibble
