// Every SIMD level that this processor has against the reference: the one it would choose is also
// tested through the device, the others only here.

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "kernels/block_quantize.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/ops.h"

namespace nibble {
namespace {

class BlockQuantizeSimdTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }

  static void ExpectAsReference(Codebook codebook, int64_t block_size, FloatType type,
                                const std::vector<std::byte>& source) {
    const int64_t count = std::ssize(source) / BytesPerElement(type);
    std::vector<uint8_t> codes(static_cast<size_t>(CodeBytes(count)), 0xcc);
    std::vector<float> scales(static_cast<size_t>(BlockCount(count, block_size)), -1.0f);
    std::vector<uint8_t> expected_codes(codes);
    std::vector<float> expected_scales(scales);
    const uint64_t first = QuantizeBlocks(codebook, block_size, type, source.data(), count,
                                          codes.data(), scales.data());
    QuantizeRef(codebook, block_size, type, source.data(), count, expected_codes.data(),
                expected_scales.data());
    EXPECT_EQ(first, FindNonFiniteRef(type, source.data(), count));
    EXPECT_EQ(first, FindFirstNonFinite(type, source.data(), count));
    EXPECT_EQ(std::memcmp(scales.data(), expected_scales.data(), scales.size() * 4), 0);
    EXPECT_TRUE(codes == expected_codes);

    std::vector<std::byte> target(source.size());
    std::vector<std::byte> expected(source.size());
    DequantizeBlocks(codebook, block_size, type, codes.data(), scales.data(), count, target.data());
    DequantizeRef(codebook, block_size, type, codes.data(), scales.data(), count, expected.data());
    EXPECT_TRUE(target == expected);
  }

  static void ExpectAsReferenceInEveryFormat(FloatType type, const std::vector<std::byte>& source) {
    for (const Codebook codebook : {Codebook::kNf4, Codebook::kFp4}) {
      for (const int64_t block_size : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
        SCOPED_TRACE(testing::Message()
                     << "block " << block_size << " codebook " << static_cast<int>(codebook)
                     << " type " << static_cast<int>(type));
        ExpectAsReference(codebook, block_size, type, source);
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Level, BlockQuantizeSimdTest,
                         testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

constexpr std::array<FloatType, 3> kTypes = {FloatType::kBf16, FloatType::kF16, FloatType::kF32};

TEST_P(BlockQuantizeSimdTest, EqualsTheReferenceOnNormalDataOfEverySize) {
  std::mt19937 random(2);
  for (const FloatType type : kTypes) {
    for (const float deviation : {0.02f, 3e4f, 1e-7f}) {  // The last two leave F16's normal range.
      std::normal_distribution<float> normal(0.0f, deviation);
      std::vector<std::byte> source(static_cast<size_t>(20007 * BytesPerElement(type)));
      for (int64_t index = 0; index < 20007; ++index) {
        StoreElement(type, std::fmin(normal(random), 6e4f), source.data(), index);
      }
      ExpectAsReferenceInEveryFormat(type, source);
    }
  }
}

TEST_P(BlockQuantizeSimdTest, EqualsTheReferenceOnRandomBits) {
  std::mt19937 random(3);
  for (const FloatType type : kTypes) {
    std::vector<std::byte> source(60001);
    for (std::byte& byte : source) {
      byte = static_cast<std::byte>(random() & 255);
    }
    source.resize(source.size() / 4 * 4);
    ExpectAsReferenceInEveryFormat(type, source);
  }
}

// Scales of every magnitude, and elements from the largest down to nothing.
TEST_P(BlockQuantizeSimdTest, EqualsTheReferenceAtEveryExponent) {
  std::mt19937 random(4);
  for (const FloatType type : kTypes) {
    const int exponent_min = type == FloatType::kF16 ? -24 : -140;
    const int exponent_max = type == FloatType::kF16 ? 15 : 127;
    std::vector<std::byte> source;
    for (int exponent = exponent_min; exponent <= exponent_max; ++exponent) {
      std::vector<std::byte> block(static_cast<size_t>(64 * BytesPerElement(type)));
      for (int64_t index = 0; index < 64; ++index) {
        const float mantissa = 1.0f + static_cast<float>(random() % 1023) / 1024;
        const float sign = random() % 2 == 0 ? 1.0f : -1.0f;
        const int gap = index == 0 ? 0 : static_cast<int>(random() % 30);
        StoreElement(type, sign * std::ldexp(mantissa, exponent - gap), block.data(), index);
      }
      source.insert(source.end(), block.begin(), block.end());
    }
    ExpectAsReferenceInEveryFormat(type, source);
  }
}

// Where rounding decides: the F16 numbers next to threshold * scale, for every mantissa of a scale.
TEST_P(BlockQuantizeSimdTest, EqualsTheReferenceAroundEveryThresholdForEveryMantissaOfF16) {
  const std::array<float, 22> thresholds = {
      -0.8480964f,   -0.61063293f, -0.45999527f, -0.33967943f, -0.2346074f,  -0.13791173f,
      -0.045525018f, 0.03979015f,  0.12025525f,  0.20352125f,  0.29201377f,  0.38931254f,
      0.50166342f,   0.64278692f,  0.86147842f,  0.00260417f,  -0.00260417f, 0.0859375f,
      -0.20833333f,  0.29166667f,  -0.4166667f,  0.583333f};
  std::vector<std::byte> source;
  for (uint16_t scale_bits = 0x3c00; scale_bits < 0x4000; ++scale_bits) {
    std::vector<std::byte> block(128);
    std::memcpy(block.data(), &scale_bits, 2);
    const float scale = LoadElement(FloatType::kF16, block.data(), 0);
    int64_t index = 1;
    for (size_t i = 0; i < 21; ++i) {
      const float threshold = thresholds[(i + scale_bits) % thresholds.size()];
      std::array<std::byte, 2> middle;
      StoreElement(FloatType::kF16, threshold * scale, middle.data(), 0);
      uint16_t bits = 0;
      std::memcpy(&bits, middle.data(), 2);
      for (const int step : {-1, 0, 1}) {
        const uint16_t value = static_cast<uint16_t>(bits + step);
        std::memcpy(block.data() + 2 * index++, &value, 2);
      }
    }
    source.insert(source.end(), block.begin(), block.end());
  }
  ExpectAsReference(Codebook::kNf4, 64, FloatType::kF16, source);
  ExpectAsReference(Codebook::kFp4, 64, FloatType::kF16, source);
}

}  // namespace
}  // namespace nibble
