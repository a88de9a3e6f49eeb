// The scale search of every device against the reference, to the bit, and what it leaves alone.

#include <algorithm>
#include <bit>
#include <cmath>

#include "tests/kernels/scale_search_fixture.h"

namespace nibble {
namespace {

class ScaleSearchTest : public BlockTest {
 protected:
  void ExpectAsReference(const BlockCase& c, Skew skew = {}) {
    const BlockPlanes expected = QuantizeWithReference(c);
    const BlockPlanes found = Quantize(c, skew);
    EXPECT_EQ(FirstDifference(found.scales, expected.scales), -1) << "scales differ";
    EXPECT_EQ(found.first_non_finite, expected.first_non_finite);
    if (is_host() || c.type != FloatType::kF32) {
      EXPECT_EQ(FirstDifference(found.codes, expected.codes), -1) << "codes differ";
    } else {
      ExpectCodesOfF32(c, found, expected);
    }
  }

  // A GPU approximates the reciprocals of those fp32 scales that are left plain.
  void ExpectCodesOfF32(const BlockCase& c, const BlockPlanes& found, const BlockPlanes& expected) {
    const BlockPlanes plain = QuantizeWithReference(Plain(c));
    for (int64_t index = 0; index < c.element_count(); ++index) {
      const auto block = static_cast<size_t>(index / c.block_size);
      const float scale = expected.scales[block];
      const float value = LoadElement(c.type, c.source.data(), index);
      const bool is_plain = scale == plain.scales[block];
      ASSERT_TRUE(CodeAt(found.codes, index) == CodeAt(expected.codes, index) ||
                  (is_plain && IsAtThreshold(c.codebook, value, scale)))
          << "element " << index << ": " << value << " under " << scale;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Host, ScaleSearchTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, ScaleSearchTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

TEST_P(ScaleSearchTest, EqualsTheReferenceAtEveryLengthAroundEveryEdge) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      for (const int64_t block_size : kBlockSizes) {
        for (const int64_t count : {int64_t{1}, int64_t{7}, block_size - 1, block_size,
                                    block_size + 1, 2 * block_size + 31, int64_t{4096 + 5}}) {
          for (const ScaleSearch search : kSearches) {
            const BlockCase c = {codebook, block_size, type,
                                 Normal(type, count, static_cast<uint32_t>(count)), search};
            SCOPED_TRACE(Describe(c));
            ExpectAsReference(c);
          }
        }
      }
    }
  }
}

// Several of what a CTA of the GPU takes, and of what the host takes at a time.
TEST_P(ScaleSearchTest, EqualsTheReferenceOnManyTiles) {
  for (const int64_t block_size : {32, 64, 1024}) {
    const BlockCase c = {Codebook::kNf4, block_size, FloatType::kBf16,
                         Normal(FloatType::kBf16, 16384 * 5 + 4096 + 77, 3), ScaleSearch::kSigned};
    SCOPED_TRACE(Describe(c));
    ExpectAsReference(c);
  }
}

TEST_P(ScaleSearchTest, EqualsTheReferenceWhereverItsPlanesLie) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      for (int64_t skew = 1; skew < 17; skew += 3) {
        const BlockCase c = {codebook, 64, type, Normal(type, 1000 + skew, 5),
                             ScaleSearch::kSigned};
        SCOPED_TRACE(Describe(c) + " skew " + std::to_string(skew));
        ExpectAsReference(c, {.elements = skew, .codes = skew, .scales = skew});
        ExpectAsReference(c, {.elements = 8, .codes = skew, .scales = 0});
      }
    }
  }
}

// Where candidates have equal costs, where x lies on a border of rows, of codes, or of nothing.
std::vector<std::function<float(int64_t)>> SearchStructures() {
  std::vector<std::function<float(int64_t)>> structures = Structures();
  structures.insert(
      structures.end(),
      {[](int64_t i) { return static_cast<float>(i * 7919 % 17 - 8); },
       [](int64_t i) { return static_cast<float>(i * 7919 % 129 - 64) / 64; },
       [](int64_t i) { return i % 64 < 60 ? 0.0f : static_cast<float>(i % 5 - 2); },  // Sparse.
       [](int64_t i) { return -static_cast<float>(i * 37 % 64); },  // Of one sign.
       [](int64_t i) { return i % 2 == 0 ? 1.0f : -1.0f; },
       [](int64_t i) { return kNf4Values[static_cast<size_t>(i * 5 % 16)]; },
       [](int64_t i) { return -1.25f * kNf4Values[static_cast<size_t>(i * 5 % 16)]; },
       [](int64_t i) { return kFp4Values[static_cast<size_t>(i * 5 % 16)]; },
       [](int64_t i) { return i % 15 == 0 ? 1.5f : kNf4Thresholds[static_cast<size_t>(i % 15)]; },
       [](int64_t i) { return std::ldexp(1.0f, static_cast<int>(-i * 11 % 40)); },
       [](int64_t i) {
         return std::ldexp(i % 3 == 0 ? -1.0f : 1.0f, 98 + static_cast<int>(i / 64 % 5));
       },
       [](int64_t i) {
         return std::ldexp(static_cast<float>(i * 37 % 64 - 31),
                           -108 + static_cast<int>(i / 64 % 9));
       }});
  return structures;
}

TEST_P(ScaleSearchTest, EqualsTheReferenceOnDataOfEveryStructure) {
  const auto structures = SearchStructures();
  for (size_t index = 0; index < structures.size(); ++index) {
    for (const Codebook codebook : kCodebooks) {
      for (const FloatType type : kTypes) {
        for (const int64_t block_size : {int64_t{32}, int64_t{64}, int64_t{1024}}) {
          const BlockCase c = {codebook, block_size, type, Elements(type, 2500, structures[index]),
                               ScaleSearch::kSigned};
          SCOPED_TRACE(Describe(c) + " structure " + std::to_string(index));
          ExpectAsReference(c);
        }
      }
    }
  }
}

TEST_P(ScaleSearchTest, EqualsTheReferenceOnRandomBits) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      for (const int64_t block_size : {int64_t{32}, int64_t{64}, int64_t{512}}) {
        const BlockCase c = {codebook, block_size, type, RandomBits(60000, 11),
                             ScaleSearch::kSigned};
        SCOPED_TRACE(Describe(c));
        ExpectAsReference(c);
      }
    }
  }
}

TEST_P(ScaleSearchTest, GivesTilesTheBytesOfTheWhole) {
  for (const FloatType type : kTypes) {
    const BlockCase whole = {Codebook::kNf4, 64, type, Normal(type, 10000, 3),
                             ScaleSearch::kSigned};
    const BlockPlanes expected = Quantize(whole);
    BlockPlanes joined;
    for (const auto& [begin, end] :
         {std::pair<int64_t, int64_t>{0, 64}, {64, 4096 + 192}, {4096 + 192, 10000}}) {
      BlockCase tile = whole;
      const int64_t bytes = BytesPerElement(type);
      tile.source.assign(whole.source.begin() + begin * bytes, whole.source.begin() + end * bytes);
      const BlockPlanes planes = Quantize(tile);
      joined.codes.insert(joined.codes.end(), planes.codes.begin(), planes.codes.end());
      joined.scales.insert(joined.scales.end(), planes.scales.begin(), planes.scales.end());
    }
    EXPECT_EQ(joined.codes, expected.codes);
    EXPECT_EQ(joined.scales, expected.scales);
  }
}

// Blocks 3 and 7 hold what is not finite, 5 nothing, 9 and 11 what is too small and too large to be
// searched; of the others some must change, or nothing was tested.
TEST_P(ScaleSearchTest, LeavesBlocksPlainThatHoldNoFiniteWeights) {
  for (const FloatType type : {FloatType::kBf16, FloatType::kF32}) {
    for (const Codebook codebook : kCodebooks) {
      BlockCase c = {codebook, 64, type, Normal(type, 13 * 64, 1), ScaleSearch::kSigned};
      StoreElement(type, NAN, c.source.data(), 3 * 64 + 17);
      StoreElement(type, -INFINITY, c.source.data(), 7 * 64);
      for (int64_t i = 0; i < 64; ++i) {
        const float value = LoadElement(type, c.source.data(), i);
        StoreElement(type, 0.0f, c.source.data(), 5 * 64 + i);
        StoreElement(type, value * 0x1p-96f, c.source.data(), 9 * 64 + i);
        StoreElement(type, value * 0x1p106f, c.source.data(), 11 * 64 + i);
      }
      const BlockPlanes searched = Quantize(c);
      const BlockPlanes plain = Quantize(Plain(c));
      EXPECT_EQ(searched.first_non_finite, static_cast<uint64_t>(3 * 64 + 17));
      int changed = 0;
      for (size_t block = 0; block < 13; ++block) {
        const bool is_same =
            std::bit_cast<uint32_t>(searched.scales[block]) ==
                std::bit_cast<uint32_t>(plain.scales[block]) &&
            std::memcmp(&searched.codes[block * 32], &plain.codes[block * 32], 32) == 0;
        const bool is_odd = block >= 3 && block % 2 == 1;
        EXPECT_TRUE(is_same || !is_odd) << Describe(c) << " block " << block;
        changed += is_same ? 0 : 1;
      }
      EXPECT_GE(changed, 4) << Describe(c);
    }
  }
}

// What plain NF4 holds without error cannot be improved on.
TEST_P(ScaleSearchTest, LeavesBlocksPlainThatHaveNoError) {
  for (const Codebook codebook : kCodebooks) {
    const auto& values = codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
    const BlockCase c = {
        codebook, 64, FloatType::kF32,
        Elements(FloatType::kF32, 6400,
                 [&](int64_t i) { return values[static_cast<size_t>(i * 5 % 16)] * 0.375f; }),
        ScaleSearch::kSigned};
    const BlockPlanes searched = Quantize(c);
    const BlockPlanes plain = Quantize(Plain(c));
    EXPECT_EQ(searched.scales, plain.scales);
    EXPECT_EQ(searched.codes, plain.codes);
  }
}

TEST_P(ScaleSearchTest, GivesNegativeScalesToNf4AloneAndOnlyWhenAsked) {
  for (const Codebook codebook : kCodebooks) {
    for (const ScaleSearch search : kSearches) {
      const BlockCase c = {codebook, 64, FloatType::kBf16, Normal(FloatType::kBf16, 64 * 500, 8),
                           search};
      const std::vector<float> scales = Quantize(c).scales;
      const auto negative =
          std::count_if(scales.begin(), scales.end(), [](float scale) { return scale < 0; });
      if (codebook == Codebook::kNf4 && search == ScaleSearch::kSigned) {
        EXPECT_NEAR(static_cast<double>(negative), 250, 100);  // Normal data prefers no sign.
      } else {
        EXPECT_EQ(negative, 0);
      }
    }
  }
}

TEST_P(ScaleSearchTest, TakesSignedForPositiveInFp4) {
  BlockCase c = {Codebook::kFp4, 64, FloatType::kF16, Normal(FloatType::kF16, 20011, 9),
                 ScaleSearch::kSigned};
  const BlockPlanes with_sign = Quantize(c);
  c.scale_search = ScaleSearch::kPositive;
  const BlockPlanes positive = Quantize(c);
  EXPECT_EQ(with_sign.codes, positive.codes);
  EXPECT_EQ(with_sign.scales, positive.scales);
}

// The rule of nf4_format.h under whatever scale was found.
TEST_P(ScaleSearchTest, GivesEachElementTheCodeOfItsQuotient) {
  const BlockCase c = {Codebook::kNf4, 64, FloatType::kBf16, Normal(FloatType::kBf16, 64 * 999, 4),
                       ScaleSearch::kSigned};
  const BlockPlanes planes = Quantize(c);
  for (int64_t index = 0; index < c.element_count(); ++index) {
    const float reciprocal = 1.0f / planes.scales[static_cast<size_t>(index / 64)];
    const float x = LoadElement(c.type, c.source.data(), index) * reciprocal;
    const auto code = std::count_if(kNf4Thresholds.begin(), kNf4Thresholds.end(),
                                    [&](float threshold) { return x > threshold; });
    ASSERT_EQ(CodeAt(planes.codes, index), code) << "element " << index;
  }
}

TEST_P(ScaleSearchTest, IsDecodedByTheOrdinaryDequantizer) {
  for (const FloatType type : kTypes) {
    for (const int64_t block_size : {64, 256}) {
      const BlockCase c = {Codebook::kNf4, block_size, type, Normal(type, 10007, 6),
                           ScaleSearch::kSigned};
      const BlockPlanes planes = Quantize(c);
      const std::vector<std::byte> values = Dequantize(c, planes);
      const std::vector<std::byte> expected = Elements(type, c.element_count(), [&](int64_t i) {
        return kNf4Values[CodeAt(planes.codes, i)] *
               planes.scales[static_cast<size_t>(i / block_size)];
      });
      EXPECT_EQ(FirstDifference(values, expected), -1) << Describe(c);
    }
  }
}

}  // namespace
}  // namespace nibble
