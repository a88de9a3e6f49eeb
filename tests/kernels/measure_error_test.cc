// Error statistics on every device: hand-derived sums, the order that error_sums.h fixes, and the
// reference.

#include <cfloat>
#include <cmath>
#include <limits>

#include "kernels/measure_error_ref.h"
#include "tests/kernels/block_data.h"
#include "tests/kernels/block_fixture.h"

namespace nibble {
namespace {

class MeasureErrorTest : public BlockTest {
 protected:
  void ExpectAsReference(const BlockCase& c, const BlockPlanes& planes, Skew skew = {}) {
    std::vector<ErrorSums> expected(static_cast<size_t>(ErrorChunkCount(c.element_count())));
    MeasureErrorRef(c.codebook, c.block_size, c.type, c.source.data(), planes.codes.data(),
                    planes.scales.data(), c.element_count(), expected.data());
    const std::vector<ErrorSums> found = MeasureError(c, planes, skew);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(IsSame(found[i].squared_error, expected[i].squared_error))
          << "chunk " << i << ": " << found[i].squared_error << ", " << expected[i].squared_error;
      EXPECT_TRUE(IsSame(found[i].squared, expected[i].squared))
          << "chunk " << i << ": " << found[i].squared << ", " << expected[i].squared;
      EXPECT_EQ(std::bit_cast<uint32_t>(found[i].error_max),
                std::bit_cast<uint32_t>(expected[i].error_max))
          << "chunk " << i;
      EXPECT_EQ(found[i].padding, 0u);
    }
  }

  // Which NaN a NaN is does not matter.
  static bool IsSame(double found, double expected) {
    return std::bit_cast<uint64_t>(found) == std::bit_cast<uint64_t>(expected) ||
           (std::isnan(found) && std::isnan(expected));
  }
};
INSTANTIATE_TEST_SUITE_P(Host, MeasureErrorTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, MeasureErrorTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

// Every code 15, which is 1, under scales of 2: every element decodes to 2.
BlockPlanes Twos(int64_t count) {
  return {std::vector<uint8_t>(static_cast<size_t>(CodeBytes(count)), 0xff),
          std::vector<float>(static_cast<size_t>(BlockCount(count, 64)), 2.0f)};
}

TEST_P(MeasureErrorTest, SumsTheSquaresOfEachChunk) {
  for (const FloatType type : kTypes) {
    const int64_t count = 65536 + 4464;
    const BlockCase c = {Codebook::kNf4, 64, type,
                         Elements(type, count, [](int64_t i) { return i == 70 ? -3.0f : 1.5f; })};
    const std::vector<ErrorSums> sums = MeasureError(c, Twos(count));
    ASSERT_EQ(sums.size(), 2u);
    EXPECT_EQ(sums[0].squared_error, 65535 * 0.25 + 25);
    EXPECT_EQ(sums[0].squared, 65535 * 2.25 + 9);
    EXPECT_EQ(sums[0].error_max, 5.0f);
    EXPECT_EQ(sums[1].squared_error, 4464 * 0.25);
    EXPECT_EQ(sums[1].squared, 4464 * 2.25);
    EXPECT_EQ(sums[1].error_max, 0.5f);
  }
}

// 2^60 in fp64 swallows what is not above 128. Lane 0 has it, so the other 31 ones of that lane are
// lost, and of the neighbours' sums, 32, 64, 128, 256, ..., 4096, those up to 128.
TEST_P(MeasureErrorTest, AddsLanesInTurnThenNeighboursThenPieces) {
  const BlockCase c = {
      Codebook::kNf4, 64, FloatType::kBf16,
      Elements(FloatType::kBf16, 16384, [](int64_t i) { return i == 0 ? 0x1p30f : 1.0f; })};
  const std::vector<ErrorSums> sums = MeasureError(c, Twos(16384));
  ASSERT_EQ(sums.size(), 1u);
  EXPECT_EQ(sums[0].squared, 0x1p60 + (256 + 512 + 1024 + 2048 + 4096) + 8192);
}

TEST_P(MeasureErrorTest, FindsNoErrorWhereEveryElementIsAValueOfTheCodebook) {
  for (const Codebook codebook : kCodebooks) {
    const auto& values = codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
    const BlockCase c = {codebook, 64, FloatType::kF32,
                         Elements(FloatType::kF32, 5000, [&](int64_t i) {
                           return values[static_cast<size_t>(i * 7 % 16)];
                         })};
    const std::vector<ErrorSums> sums = MeasureError(c, Quantize(c));
    EXPECT_EQ(sums[0].squared_error, 0.0);
    EXPECT_EQ(sums[0].error_max, 0.0f);
    EXPECT_GT(sums[0].squared, 0.0);
  }
}

TEST_P(MeasureErrorTest, EqualsTheReferenceAtEveryLengthAroundEveryEdge) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      for (const int64_t count :
           {1, 7, 8, 9, 255, 256, 257, 4096, 8191, 8192, 8193, 65535, 65536, 65537, 140000}) {
        SCOPED_TRACE(testing::Message() << count << " elements, type " << static_cast<int>(type));
        const BlockCase c = {codebook, 64, type, Normal(type, count, 7)};
        const BlockPlanes planes = QuantizeWithReference(c);
        ExpectAsReference(c, planes);
        ExpectAsReference(c, planes, {.elements = 1, .codes = 3, .scales = 1});
      }
    }
  }
}

TEST_P(MeasureErrorTest, EqualsTheReferenceForEveryBlockSize) {
  for (const FloatType type : kTypes) {
    for (const int64_t block_size : {32, 128, 256, 512, 1024, 2048, 4096}) {
      SCOPED_TRACE(testing::Message() << "block " << block_size);
      const BlockCase c = {Codebook::kNf4, block_size, type, Normal(type, 30007, 3)};
      ExpectAsReference(c, QuantizeWithReference(c));
    }
  }
}

TEST_P(MeasureErrorTest, EqualsTheReferenceOnDataOfEveryStructure) {
  const std::vector<std::function<float(int64_t)>> structures = {
      [](int64_t) { return 0.0f; },
      [](int64_t) { return 0.0123f; },
      [](int64_t i) { return static_cast<float>(i % 257 - 128) * 0.01f; },
      [](int64_t i) { return i % 64 == 17 ? 1000.0f : 0.01f; },
      [](int64_t i) { return static_cast<float>(i % 5 - 2) * 1e-41f; },
      [](int64_t i) { return i % 64 == 3 ? FLT_MIN : static_cast<float>(i % 9 - 4) * 2e-39f; },
      [](int64_t i) { return i % 2 == 0 ? FLT_MAX : -1e38f; },
      [](int64_t i) { return i % 100 == 50 ? NAN : static_cast<float>(i % 9 - 4); },
      [](int64_t i) { return i % 100 == 50 ? -INFINITY : static_cast<float>(i % 9 - 4); },
      [](int64_t) { return NAN; },
  };
  for (size_t index = 0; index < structures.size(); ++index) {
    for (const Codebook codebook : kCodebooks) {
      for (const FloatType type : kTypes) {
        SCOPED_TRACE(testing::Message() << "structure " << index);
        const BlockCase c = {codebook, 64, type, Elements(type, 10000, structures[index])};
        ExpectAsReference(c, QuantizeWithReference(c));
      }
    }
  }
}

TEST_P(MeasureErrorTest, GivesRangesTheChunksOfTheWhole) {
  const BlockCase whole = {Codebook::kNf4, 64, FloatType::kBf16,
                           Normal(FloatType::kBf16, 3 * 65536 + 1000, 2)};
  const std::vector<ErrorSums> expected = MeasureError(whole, QuantizeWithReference(whole));
  std::vector<ErrorSums> joined;
  for (const auto& [begin, end] :
       {std::pair<int64_t, int64_t>{0, 65536}, {65536, 3 * 65536 + 1000}}) {
    BlockCase range = whole;
    range.source.assign(whole.source.begin() + begin * 2, whole.source.begin() + end * 2);
    for (const ErrorSums& sums : MeasureError(range, QuantizeWithReference(range))) {
      joined.push_back(sums);
    }
  }
  EXPECT_EQ(FirstDifference(joined, expected), -1);
}

TEST_P(MeasureErrorTest, RefusesSpansThatDoNotFit) {
  EXPECT_TRUE(MeasureError({Codebook::kNf4, 64, FloatType::kBf16, {}}, {}).empty());
  const MeasureErrorArgs good = {Codebook::kNf4, 64,         FloatType::kBf16, 70000,
                                 Cut(140000),    Cut(35000), Cut(1094 * 4),    Cut(48)};
  EXPECT_TRUE(CheckArgs(good).ok()) << CheckArgs(good);
  for (const auto& spoil : std::vector<std::function<void(MeasureErrorArgs&)>>{
           [](MeasureErrorArgs& args) { args.block_size = 48; },
           [](MeasureErrorArgs& args) { args.element_count = 69999; },
           [](MeasureErrorArgs& args) { args.element_count = -1; },
           [](MeasureErrorArgs& args) { args.element_count = std::numeric_limits<int64_t>::max(); },
           [](MeasureErrorArgs& args) { args.sums = args.sums.Slice(0, 24); },
           [](MeasureErrorArgs& args) { args.sums = DeviceSpan(args.sums.address() + 4, 48); }}) {
    MeasureErrorArgs bad = good;
    spoil(bad);
    EXPECT_TRUE(absl::IsInvalidArgument(device_->ops().MeasureError(*queue_, bad)));
  }
}

}  // namespace
}  // namespace nibble
