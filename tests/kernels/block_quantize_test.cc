// Every device's quantizer and dequantizer against the reference, on data of every structure and
// shapes on and off every edge.

#include "tests/kernels/block_data.h"
#include "tests/kernels/block_fixture.h"

namespace nibble {
namespace {

class BlockQuantizeTest : public BlockTest {
 protected:
  void ExpectAsReference(const BlockCase& c, Skew skew = {}) {
    const BlockPlanes expected = QuantizeWithReference(c);
    const BlockPlanes found = Quantize(c, skew);
    EXPECT_EQ(FirstDifference(found.scales, expected.scales), -1) << "scales differ";
    EXPECT_EQ(found.first_non_finite, expected.first_non_finite);
    if (is_host() || c.type != FloatType::kF32) {
      EXPECT_EQ(FirstDifference(found.codes, expected.codes), -1) << "codes differ";
    } else {
      // The reference rounds reciprocals of fp32 scales that the GPU approximates. Each difference
      // must lie at a threshold; how many there are is up to the data: a plateau repeats one ratio.
      CountBytesAtThresholds(c, found, expected);
    }
    ExpectDequantizesAsReference(c, expected, skew);
  }

  void ExpectDequantizesAsReference(const BlockCase& c, const BlockPlanes& planes, Skew skew) {
    std::vector<std::byte> expected(c.source.size());
    DequantizeRef(c.codebook, c.block_size, c.type, planes.codes.data(), planes.scales.data(),
                  c.element_count(), expected.data());
    EXPECT_EQ(FirstDifference(Dequantize(c, planes, skew), expected), -1)
        << "dequantized values differ";
  }
};
INSTANTIATE_TEST_SUITE_P(Host, BlockQuantizeTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, BlockQuantizeTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

TEST_P(BlockQuantizeTest, EqualsTheReferenceAtEveryLengthAroundEveryEdge) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      for (const int64_t block_size : kBlockSizes) {
        for (const int64_t count : {int64_t{1}, int64_t{7}, block_size - 1, block_size,
                                    block_size + 1, 2 * block_size + 31, int64_t{4096 * 2 + 5}}) {
          const BlockCase c = {codebook, block_size, type,
                               Normal(type, count, static_cast<uint32_t>(count))};
          SCOPED_TRACE(Describe(c));
          ExpectAsReference(c);
        }
      }
    }
  }
}

TEST_P(BlockQuantizeTest, EqualsTheReferenceWhereverItsPlanesLie) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      for (int64_t skew = 1; skew < 17; skew += 3) {
        const BlockCase c = {codebook, 64, type, Normal(type, 1000 + skew, 5)};
        SCOPED_TRACE(Describe(c) + " skew " + std::to_string(skew));
        ExpectAsReference(c, {.elements = skew, .codes = skew, .scales = skew});
        ExpectAsReference(c, {.elements = 8, .codes = skew, .scales = 0});
      }
    }
  }
}

TEST_P(BlockQuantizeTest, DoesNothingButResetTheCellForNoElements) {
  for (const FloatType type : kTypes) {
    const BlockPlanes planes = Quantize({Codebook::kNf4, 64, type, {}});
    EXPECT_TRUE(planes.codes.empty());
    EXPECT_EQ(planes.first_non_finite, kAllFinite);
  }
}

TEST_P(BlockQuantizeTest, EqualsTheReferenceOnDataOfEveryStructure) {
  const auto structures = Structures();
  for (size_t index = 0; index < structures.size(); ++index) {
    for (const Codebook codebook : kCodebooks) {
      for (const FloatType type : kTypes) {
        for (const int64_t block_size : {int64_t{32}, int64_t{64}, int64_t{1024}}) {
          const BlockCase c = {codebook, block_size, type, Elements(type, 2500, structures[index])};
          SCOPED_TRACE(Describe(c) + " structure " + std::to_string(index));
          ExpectAsReference(c);
        }
      }
    }
  }
}

TEST_P(BlockQuantizeTest, EqualsTheReferenceOnRandomBits) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      for (const int64_t block_size : {int64_t{32}, int64_t{64}, int64_t{512}}) {
        const BlockCase c = {codebook, block_size, type, RandomBits(60000, 11)};
        SCOPED_TRACE(Describe(c));
        ExpectAsReference(c);
      }
    }
  }
}

// All bf16 magnitudes up to a scale, both signs, for every mantissa that a scale can have.
TEST_P(BlockQuantizeTest, EqualsTheReferenceForEveryBf16UnderEveryMantissaOfItsScale) {
  for (uint32_t scale = 0x3f80; scale < 0x4000; ++scale) {
    BlockCase c = {Codebook::kNf4, 64, FloatType::kBf16, {}};
    std::vector<uint16_t> bits;
    for (uint32_t magnitude = scale; magnitude > scale - 8 * 128; --magnitude) {
      if (bits.size() % 64 == 0) {
        bits.push_back(static_cast<uint16_t>(scale));
      }
      bits.push_back(static_cast<uint16_t>(magnitude | 0x8000));
      bits.push_back(static_cast<uint16_t>(magnitude));
    }
    const auto bytes = std::as_bytes(std::span(bits));
    c.source.assign(bytes.begin(), bytes.end());
    for (const Codebook codebook : kCodebooks) {
      c.codebook = codebook;
      ASSERT_EQ(FirstDifference(Quantize(c).codes, QuantizeWithReference(c).codes), -1)
          << Describe(c) << " " << scale;
    }
  }
}

TEST_P(BlockQuantizeTest, GivesTilesTheBytesOfTheWhole) {
  for (const FloatType type : kTypes) {
    const BlockCase whole = {Codebook::kNf4, 64, type, Normal(type, 10000, 3)};
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

TEST_P(BlockQuantizeTest, FindsTheFirstElementThatIsNotFinite) {
  for (const FloatType type : kTypes) {
    for (const int64_t position : {0, 1, 63, 64, 4095, 4096, 9998, 9999}) {
      for (const float value : {NAN, INFINITY, -INFINITY}) {
        BlockCase c = {Codebook::kNf4, 64, type, Normal(type, 10000, 1)};
        StoreElement(type, value, c.source.data(), position);
        StoreElement(type, NAN, c.source.data(), 9999);
        EXPECT_EQ(Quantize(c).first_non_finite, static_cast<uint64_t>(position)) << Describe(c);
        const DeviceSpan source = Cut(std::ssize(c.source), BytesPerElement(type));
        const DeviceSpan cell = Cut(8);
        Upload(c.source, source);
        const FindNonFiniteArgs args = {type, c.element_count(), source, cell};
        ASSERT_TRUE(device_->ops().FindNonFinite(*queue_, args).ok());
        EXPECT_EQ(Download<uint64_t>(cell).front(), static_cast<uint64_t>(position));
      }
    }
  }
}

// Scales of a foreign checkpoint can be anything, and so can the codes.
TEST_P(BlockQuantizeTest, DequantizesAnyPlanesAsTheReference) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      BlockCase c = {codebook, 32, type, {}};
      c.source.resize(static_cast<size_t>(64000 * BytesPerElement(type)));
      const std::vector<std::byte> bits = RandomBits(CodeBytes(64000) + ScaleBytes(64000, 32), 17);
      BlockPlanes planes;
      planes.codes.resize(static_cast<size_t>(CodeBytes(64000)));
      planes.scales.resize(static_cast<size_t>(BlockCount(64000, 32)));
      std::memcpy(planes.codes.data(), bits.data(), planes.codes.size());
      std::memcpy(planes.scales.data(), bits.data() + planes.codes.size(),
                  planes.scales.size() * 4);
      SCOPED_TRACE(Describe(c));
      ExpectDequantizesAsReference(c, planes, {});
      ExpectDequantizesAsReference(c, planes, {.elements = 1, .codes = 1, .scales = 1});
    }
  }
}

}  // namespace
}  // namespace nibble
