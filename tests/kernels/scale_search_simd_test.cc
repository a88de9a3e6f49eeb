// The scale search of every SIMD level that this processor has against the reference.

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/scale_search.h"
#include "kernels/scale_search_ref.h"

namespace nibble {
namespace {

class ScaleSearchSimdTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }

  static void ExpectAsReference(ScaleSearch search, Codebook codebook, int64_t block_size,
                                FloatType type, const std::vector<std::byte>& source) {
    const int64_t count = std::ssize(source) / BytesPerElement(type);
    std::vector<uint8_t> codes(static_cast<size_t>(CodeBytes(count)), 0xcc);
    std::vector<float> scales(static_cast<size_t>(BlockCount(count, block_size)), -1.0f);
    std::vector<uint8_t> expected_codes(codes);
    std::vector<float> expected_scales(scales);
    const uint64_t first = SearchBlockScales(search, codebook, block_size, type, source.data(),
                                             count, codes.data(), scales.data());
    ScaleSearchRef(search, codebook, block_size, type, source.data(), count, expected_codes.data(),
                   expected_scales.data());
    EXPECT_EQ(first, FindNonFiniteRef(type, source.data(), count));
    EXPECT_EQ(std::memcmp(scales.data(), expected_scales.data(), scales.size() * 4), 0);
    EXPECT_TRUE(codes == expected_codes);
  }

  static void ExpectAsReferenceInEveryFormat(FloatType type, const std::vector<std::byte>& source) {
    for (const Codebook codebook : {Codebook::kNf4, Codebook::kFp4}) {
      for (const ScaleSearch search : {ScaleSearch::kPositive, ScaleSearch::kSigned}) {
        for (const int64_t block_size : {32, 64, 128, 256, 1024, 4096}) {
          SCOPED_TRACE(testing::Message()
                       << "block " << block_size << " codebook " << static_cast<int>(codebook)
                       << " type " << static_cast<int>(type));
          ExpectAsReference(search, codebook, block_size, type, source);
        }
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Level, ScaleSearchSimdTest,
                         testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

constexpr FloatType kTypes[] = {FloatType::kBf16, FloatType::kF16, FloatType::kF32};

TEST_P(ScaleSearchSimdTest, EqualsTheReferenceOnNormalDataOfEverySize) {
  std::mt19937 random(2);
  for (const FloatType type : kTypes) {
    for (const float deviation : {0.02f, 3e4f, 1e-7f}) {  // The last two leave F16's normal range.
      std::normal_distribution<float> normal(0.0f, deviation);
      std::vector<std::byte> source(static_cast<size_t>(4207 * BytesPerElement(type)));
      for (int64_t index = 0; index < 4207; ++index) {
        StoreElement(type, std::fmin(normal(random), 6e4f), source.data(), index);
      }
      ExpectAsReferenceInEveryFormat(type, source);
    }
  }
}

TEST_P(ScaleSearchSimdTest, EqualsTheReferenceOnRandomBits) {
  std::mt19937 random(3);
  for (const FloatType type : kTypes) {
    std::vector<std::byte> source(30001);
    for (std::byte& byte : source) {
      byte = static_cast<std::byte>(random() & 255);
    }
    source.resize(source.size() / 4 * 4);
    ExpectAsReferenceInEveryFormat(type, source);
  }
}

// Elements around the thresholds of the scale that the reference finds: where integers cannot tell
// a code, and one that is wrong by a little would do so.
TEST_P(ScaleSearchSimdTest, EqualsTheReferenceAtTheThresholdsOfTheScaleFound) {
  constexpr float kThresholds[] = {-0.8480964f, -0.61063293f, -0.2346074f, -0.045525018f,
                                   0.03979015f, 0.20352125f,  0.64278692f, 0.86147842f};
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<std::byte> source(static_cast<size_t>(64 * 100 * 4));
  for (int64_t begin = 0; begin < 64 * 100; begin += 64) {
    std::byte* const block = source.data() + begin * 4;
    for (int64_t index = 0; index < 64; ++index) {
      StoreElement(FloatType::kF32, normal(random), block, index);
    }
    std::vector<uint8_t> codes(32);
    float scale = 0;
    ScaleSearchRef(ScaleSearch::kSigned, Codebook::kNf4, 64, FloatType::kF32, block, 64,
                   codes.data(), &scale);
    for (int64_t index = 0; index < 64; index += 16) {  // Few, so that the scale hardly moves.
      float value = kThresholds[random() % 8] * scale;
      for (uint32_t step = random() % 4; step > 0; --step) {
        value = std::nextafter(value, 9.0f);
      }
      StoreElement(FloatType::kF32, value, block, index);
    }
  }
  ExpectAsReferenceInEveryFormat(FloatType::kF32, source);
}

// Exact zeros, as pruned weights are, and blocks at both ends of what is searched.
TEST_P(ScaleSearchSimdTest, EqualsTheReferenceOnSparseDataOfEveryExponent) {
  std::mt19937 random(4);
  for (const FloatType type : kTypes) {
    const int exponent_min = type == FloatType::kF16 ? -24 : -140;
    const int exponent_max = type == FloatType::kF16 ? 15 : 127;
    std::vector<std::byte> source;
    for (int exponent = exponent_min; exponent <= exponent_max; ++exponent) {
      std::vector<std::byte> block(static_cast<size_t>(64 * BytesPerElement(type)));
      for (int64_t index = 0; index < 64; ++index) {
        const float mantissa = 1.0f + static_cast<float>(random() % 1023) / 1024;
        const float sign = static_cast<float>(static_cast<int>(random() % 3) - 1);
        const int gap = index == 0 ? 0 : static_cast<int>(random() % 6);
        StoreElement(type, sign * std::ldexp(mantissa, exponent - gap), block.data(), index);
      }
      source.insert(source.end(), block.begin(), block.end());
    }
    ExpectAsReferenceInEveryFormat(type, source);
  }
}

}  // namespace
}  // namespace nibble
