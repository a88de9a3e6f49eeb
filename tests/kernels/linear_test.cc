// Linear layers on every device against sums in double precision.

#include "tests/kernels/linear_fixture.h"

namespace nibble {
namespace {

class LinearTest : public LinearFixture {
 protected:
  void ExpectProducts(const TestMatrix& matrix, const LinearCase& c) {
    const MatrixShape& shape = matrix.matrix.shape;
    RandomNumbers random(static_cast<uint32_t>(c.live));
    const std::vector<float> source = random.Vector(c.live * shape.columns);
    std::vector<Expected> expected;
    for (int64_t m = 0; m < c.live; ++m) {
      for (int64_t n = 0; n < shape.rows; ++n) {
        expected.push_back(DotOf(matrix, n, source.data() + m * shape.columns));
      }
    }
    SCOPED_TRACE(testing::Message() << Describe(shape) << ", " << c.live << " rows of " << c.bound);
    ExpectNear(Multiply(matrix, source, c), expected);
  }
};
INSTANTIATE_TEST_SUITE_P(Host, LinearTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, LinearTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

// Every way that a kernel may be chosen: one row, a few, more than a few, many.
constexpr LinearCase kRowCases[] = {{1, 1}, {3, 2}, {8, 8}, {16, 11}, {64, 9}, {70, 70}, {130, 66}};

// Columns around what a thread, a warp and a tile take, odd ones among them: then rows begin in the
// middle of blocks and bytes.
TEST_P(LinearTest, EqualsTheSumOfProductsInEveryFormat) {
  for (const int64_t columns : {1, 7, 64, 96, 127, 256, 520, 1030}) {
    for (const int64_t block_size : {32, 128}) {
      for (const MatrixShape& shape : AllFormats(21, columns, block_size)) {
        ForgetCuts();
        const TestMatrix matrix = MakeMatrix(shape, 5);
        ExpectProducts(matrix, {3, 2});
        ExpectProducts(matrix, {65, 4});
      }
    }
  }
}

TEST_P(LinearTest, EqualsTheSumOfProductsForEveryNumberOfRows) {
  for (const LinearCase& c : kRowCases) {
    for (const int64_t columns : {63, 160}) {
      ForgetCuts();
      ExpectProducts(MakeMatrix(ShapeOf(MatrixFormat::kNf4, 131, columns), 6), c);
      ExpectProducts(MakeMatrix(ShapeOf(MatrixFormat::kBf16, 131, columns), 7), c);
    }
  }
}

TEST_P(LinearTest, ReadsBlocksOfEverySizeAndEveryBlockOfScales) {
  for (const int64_t block_size : {32, 64, 256, 1024, 4096}) {
    for (const bool double_quantized : {false, true}) {
      ForgetCuts();
      // At 32, 600 blocks: three blocks of scales.
      const MatrixShape shape = ShapeOf(MatrixFormat::kNf4, 24, 800, block_size, double_quantized);
      ExpectProducts(MakeMatrix(shape, 8), {4, 4});
      ExpectProducts(MakeMatrix(shape, 8), {65, 2});
    }
  }
}

TEST_P(LinearTest, AddsABiasOfEveryType) {
  const TestMatrix matrix = MakeMatrix(ShapeOf(MatrixFormat::kBf16, 40, 24), 9);
  RandomNumbers random(2);
  const std::vector<float> source = random.Vector(3 * 24);
  // n / 8 - 2 has few enough bits for all types.
  std::vector<float> wide;
  std::vector<uint16_t> halves;
  std::vector<uint16_t> brains;
  for (int n = 0; n < 40; ++n) {
    wide.push_back(static_cast<float>(n) / 8 - 2);
    brains.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(wide.back()) >> 16));
    const uint32_t bits = std::bit_cast<uint32_t>(wide.back());
    halves.push_back(wide.back() == 0 ? uint16_t{0}
                                      : static_cast<uint16_t>((bits >> 16 & 0x8000) |
                                                              ((bits >> 23 & 255) - 112) << 10 |
                                                              (bits >> 13 & 1023)));
  }
  std::vector<Expected> expected;
  for (int64_t m = 0; m < 3; ++m) {
    for (int64_t n = 0; n < 40; ++n) {
      expected.push_back(
          DotOf(matrix, n, source.data() + m * 24, double{wide[static_cast<size_t>(n)]}));
    }
  }
  for (const int64_t bound : {4, 65}) {
    const LinearCase c = {bound, 3};
    ExpectNear(Multiply(matrix, source, c, {FloatType::kF32, UploadVector(wide)}), expected);
    ExpectNear(Multiply(matrix, source, c, {FloatType::kF16, UploadVector(halves)}), expected);
    ExpectNear(Multiply(matrix, source, c, {FloatType::kBf16, UploadVector(brains)}), expected);
  }
}

TEST_P(LinearTest, GivesTheSameBitsWhereverMatrixAndRowsLie) {
  RandomNumbers random(3);
  for (const MatrixShape& shape : AllFormats(20, 264, 64)) {
    const std::vector<float> source = random.Vector(6 * 264);
    for (const int64_t bound : {6, 66}) {
      SCOPED_TRACE(testing::Message() << Describe(shape) << ", bound " << bound);
      ForgetCuts();
      const std::vector<float> expected =
          Multiply(MakeMatrix(shape, 4), source, LinearCase{bound, 6});
      const LinearCase apart = {bound, 6, {.rows = 3, .front = 1}, {.rows = 5, .front = 3}};
      EXPECT_EQ(FirstDifference(Multiply(MakeMatrix(shape, 4), source, apart), expected), -1);
      EXPECT_EQ(FirstDifference(Multiply(MakeMatrix(shape, 4, 1), source, apart), expected), -1);
    }
  }
}

TEST_P(LinearTest, GivesARowTheSameBitsWhateverTheOthersAre) {
  RandomNumbers random(12);
  const TestMatrix matrix = MakeMatrix(ShapeOf(MatrixFormat::kNf4, 70, 329), 10);
  for (const int64_t bound : {1, 4, 8, 32, 70}) {
    const std::vector<float> source = random.Vector(bound * 329);
    const std::vector<float> all = Multiply(matrix, source, {bound, bound});
    for (const int64_t row : {int64_t{0}, bound / 2, bound - 1}) {
      SCOPED_TRACE(testing::Message() << "row " << row << " of " << bound);
      EXPECT_EQ(FirstDifference(Multiply(matrix, RowsOf(source, 329, row, 1), {bound, 1}),
                                RowsOf(all, 70, row, 1)),
                -1);
    }
  }
}

TEST_P(LinearTest, DoesNothingWithoutRows) {
  const TestMatrix matrix = MakeMatrix(ShapeOf(MatrixFormat::kNf4, 10, 64), 11);
  for (const int64_t bound : {1, 8, 70}) {
    EXPECT_TRUE(Multiply(matrix, {}, {bound, 0}).empty());
  }
}

TEST_P(LinearTest, RefusesSpansThatAreTooShort) {
  const TestMatrix matrix = MakeMatrix(ShapeOf(MatrixFormat::kNf4, 10, 64), 11);
  LinearArgs args;
  args.rows = UploadRowCount(3, 3);
  args.weight = matrix.matrix;
  args.source = UploadRows(2, 1, 64, std::vector<float>(128, 1.0f));
  args.target = CutRows(3, 1, 10);
  EXPECT_EQ(ops().Linear(*queue_, args).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
