// Double quantization, 8-bit floats and error statistics at every SIMD level that this processor
// has: the one it would choose is also tested through the device, the others only here.
// block_quantize_simd_test has the block kernels.

#include <array>
#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/expand_f8.h"
#include "kernels/expand_f8_ref.h"
#include "kernels/measure_error.h"
#include "kernels/measure_error_ref.h"
#include "kernels/scale_quantize.h"
#include "kernels/scale_quantize_ref.h"

namespace nibble {
namespace {

class SimdLevelsTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};
INSTANTIATE_TEST_SUITE_P(Level, SimdLevelsTest,
                         testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

void ExpectScaleCodesAsReference(const std::vector<float>& scales, float offset) {
  const int64_t count = std::ssize(scales);
  std::vector<uint8_t> codes(scales.size(), 0xcc);
  std::vector<uint8_t> expected_codes(codes);
  std::vector<float> absmax2(static_cast<size_t>(ScaleBlockCount(count)), -1.0f);
  std::vector<float> expected_absmax2(absmax2);
  QuantizeScales(scales.data(), count, offset, codes.data(), absmax2.data());
  QuantizeScalesRef(scales.data(), count, offset, expected_codes.data(), expected_absmax2.data());
  EXPECT_EQ(codes, expected_codes);
  EXPECT_EQ(absmax2, expected_absmax2);
}

TEST_P(SimdLevelsTest, QuantizesScalesAsTheReferenceAtEveryExponent) {
  std::mt19937 random(4);
  std::vector<float> scales;
  for (int exponent = -148; exponent <= 127; ++exponent) {
    for (int64_t i = 0; i < kScaleBlockSize; ++i) {
      const float mantissa = 1.0f + static_cast<float>(random() % 8191) / 8192;
      const int gap = i == 0 ? 0 : static_cast<int>(random() % 25);
      const float sign = random() % 2 == 0 ? 1.0f : -1.0f;
      scales.push_back(sign * std::ldexp(mantissa, exponent - gap));
    }
  }
  scales.resize(scales.size() - 77);
  ExpectScaleCodesAsReference(scales, 0.0f);
}

// With offset 0 and a largest magnitude of 1 a scale is its own x.
TEST_P(SimdLevelsTest, QuantizesScalesAsTheReferenceAroundEveryThreshold) {
  std::vector<float> scales;
  for (const float threshold : kScaleThresholds) {
    scales.push_back(1.0f);
    for (const float x :
         {std::nextafter(threshold, -2.0f), threshold, std::nextafter(threshold, 2.0f)}) {
      scales.push_back(x);
    }
  }
  scales.resize(1024, -1.0f);
  ExpectScaleCodesAsReference(scales, 0.0f);
}

TEST_P(SimdLevelsTest, ExpandsEveryByteOfBothTypesAsTheReference) {
  std::vector<uint8_t> source(3 * 256 + 11);
  for (size_t i = 0; i < source.size(); ++i) {
    source[i] = static_cast<uint8_t>(i * 37);
  }
  const float scale = 0.0123f;
  for (const F8Type type : {F8Type::kE4M3, F8Type::kE5M2}) {
    const int64_t count = std::ssize(source);
    const F8Range range = {type, FloatType::kF32, 0, count, count, 1, count};
    std::vector<float> found(source.size());
    std::vector<float> expected(source.size());
    const auto* const scales = reinterpret_cast<const std::byte*>(&scale);
    ExpandF8Range(range, source.data(), scales, found.data());
    ExpandF8Ref(range, source.data(), scales, expected.data());
    for (size_t i = 0; i < source.size(); ++i) {
      EXPECT_TRUE(found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i])))
          << "byte " << int{source[i]} << ": " << found[i] << ", expected " << expected[i];
    }
  }
}

TEST_P(SimdLevelsTest, MeasuresErrorsToTheBitsOfTheReference) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  const int64_t count = 65536 + 8192 + 4096 + 256 + 77;
  for (const FloatType type : {FloatType::kBf16, FloatType::kF16, FloatType::kF32}) {
    std::vector<std::byte> source(static_cast<size_t>(count * BytesPerElement(type)));
    for (int64_t i = 0; i < count; ++i) {
      StoreElement(type, i % 64 == 9 ? 1e-7f : normal(random), source.data(), i);
    }
    std::vector<uint8_t> codes(static_cast<size_t>(CodeBytes(count)));
    std::vector<float> scales(static_cast<size_t>(BlockCount(count, 64)));
    QuantizeRef(Codebook::kNf4, 64, type, source.data(), count, codes.data(), scales.data());
    std::vector<ErrorSums> found(2);
    std::vector<ErrorSums> expected(2);
    MeasureBlockError(Codebook::kNf4, 64, type, source.data(), codes.data(), scales.data(), count,
                      found.data());
    MeasureErrorRef(Codebook::kNf4, 64, type, source.data(), codes.data(), scales.data(), count,
                    expected.data());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ((std::bit_cast<std::array<uint64_t, 3>>(found[i])),
                (std::bit_cast<std::array<uint64_t, 3>>(expected[i])));
    }
  }
}

}  // namespace
}  // namespace nibble
