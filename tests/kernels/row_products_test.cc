// The host's fast products at every level that this processor has, against sums in double
// precision: the one it would choose is also tested through whole models, the others only here.

#include "kernels/row_products.h"

#include <string>

#include "kernels/product_level.h"
#include "tests/kernels/matrix_fixture.h"

namespace nibble {
namespace {

constexpr ProductOptions kFast = {Arithmetic::kBf16, false};
constexpr ProductOptions kFastInvariant = {Arithmetic::kBf16, true};

// DotOf() with both factors of each product rounded to bf16, each by at most 2^-8 of itself (half
// an ulp of 8 bits): (1 + 2^-8)^2 - 1 of a product. Sums lose as in fp32, of products that are as
// much larger; a kernel may round once more for each block and for each lane it adds at the end.
Expected RoundedDotOf(const TestMatrix& matrix, int64_t n, const float* source) {
  constexpr double kProduct = 0x1p-7 + 0x1p-16;
  Expected expected;
  double magnitudes = 0;
  for (int64_t k = 0; k < matrix.matrix.shape.columns; ++k) {
    const double product = double{source[k]} * matrix.At(n, k);
    expected.value += product;
    magnitudes += std::fabs(product);
  }
  const double roundings = 2 * static_cast<double>(matrix.matrix.shape.columns) + 64;
  expected.tolerance = magnitudes * (kProduct + roundings * kUnit * (1 + kProduct));
  return expected;
}

struct ProductCase {
  int64_t row_count = 1;
  ProductOptions options = kFast;
};

// Forces a level while it lives.
class ForcedLevel {
 public:
  explicit ForcedLevel(ProductLevel level) { ForceProductLevelForTest(level); }
  ~ForcedLevel() { ForceProductLevelForTest(std::nullopt); }
};

class RowProductsTest : public MatrixTest {
 protected:
  // What the device finds for `c.row_count` rows of `source` at each level.
  std::vector<float> Multiply(const TestMatrix& matrix, const std::vector<float>& source,
                              const ProductCase& c) {
    const MatrixShape& shape = matrix.matrix.shape;
    LinearArgs args;
    args.rows = UploadRowCount(c.row_count, c.row_count);
    args.weight = matrix.matrix;
    args.source = UploadRows(c.row_count, 1, shape.columns, source, {.rows = 3, .front = 1});
    args.target = CutRows(c.row_count, 1, shape.rows, {.rows = 5, .front = 3});
    args.products = c.options;
    ExpectOk(ops().Linear(*queue_, args));
    const std::vector<float> found = DownloadRows(args.target, c.row_count);
    ExpectGuardsIntact();
    return found;
  }

  void ExpectProducts(const TestMatrix& matrix, const ProductCase& c) {
    const MatrixShape& shape = matrix.matrix.shape;
    RandomNumbers random(static_cast<uint32_t>(c.row_count));
    const std::vector<float> source = random.Vector(c.row_count * shape.columns);
    std::vector<Expected> expected;
    for (int64_t m = 0; m < c.row_count; ++m) {
      for (int64_t n = 0; n < shape.rows; ++n) {
        expected.push_back(RoundedDotOf(matrix, n, source.data() + m * shape.columns));
      }
    }
    for (const ProductLevel level : SupportedProductLevels()) {
      const ForcedLevel forced(level);
      SCOPED_TRACE(testing::Message()
                   << ProductLevelName(level) << ", " << Describe(shape) << ", " << c.row_count
                   << " rows" << (c.options.batch_invariant ? ", batch-invariant" : ""));
      ExpectNear(Multiply(matrix, source, c), expected);
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Host, RowProductsTest, testing::Values("host"), DeviceTestName);

// One row, those that a pass takes, one more, a tile of activations and parts of it.
constexpr int64_t kRowCounts[] = {1, 2, 3, 4, 5, 9, 16, 17, 40};

// Columns that are not a multiple of a block, of a byte, of a run or of a tile's row.
TEST_P(RowProductsTest, AreWithinTheBoundInEveryFormat) {
  for (const int64_t columns : {1, 7, 32, 63, 64, 96, 127, 192, 256, 520, 704, 1030}) {
    for (const int64_t block_size : {32, 64, 256}) {
      for (const MatrixShape& shape : AllFormats(35, columns, block_size)) {
        ForgetCuts();
        const TestMatrix matrix = MakeMatrix(shape, 5);
        for (const int64_t row_count : {1, 2, 5, 18}) {
          ExpectProducts(matrix, {row_count, kFast});
        }
        ExpectProducts(matrix, {3, kFastInvariant});
      }
    }
  }
}

TEST_P(RowProductsTest, AreWithinTheBoundForEveryNumberOfRows) {
  for (const int64_t row_count : kRowCounts) {
    for (const int64_t rows : {1, 2, 16, 17, 31, 70}) {
      ForgetCuts();
      ExpectProducts(MakeMatrix(ShapeOf(MatrixFormat::kNf4, rows, 320), 6), {row_count, kFast});
      ExpectProducts(MakeMatrix(ShapeOf(MatrixFormat::kBf16, rows, 90), 7), {row_count, kFast});
    }
  }
}

// More activations than a block of them, more of the matrix than a thread takes at once, and rows
// longer than a piece of K.
TEST_P(RowProductsTest, AreWithinTheBoundBeyondEveryPiece) {
  ExpectProducts(MakeMatrix(ShapeOf(MatrixFormat::kNf4, 20, 2240), 8), {20, kFast});
  ExpectProducts(MakeMatrix(ShapeOf(MatrixFormat::kNf4, 20, 1088), 9), {40, kFast});
  ForgetCuts();
  ExpectProducts(MakeMatrix(ShapeOf(MatrixFormat::kFp4, 600, 64), 10), {270, kFast});
}

TEST_P(RowProductsTest, ReadsBlocksOfEverySizeAndEveryBlockOfScales) {
  for (const int64_t block_size : {32, 64, 128, 512, 1024, 2048, 4096}) {
    for (const bool double_quantized : {false, true}) {
      ForgetCuts();
      // At 32, 600 blocks: three blocks of scales. From 128 on, rows begin within blocks.
      const TestMatrix matrix =
          MakeMatrix(ShapeOf(MatrixFormat::kNf4, 24, 832, block_size, double_quantized), 8);
      ExpectProducts(matrix, {1, kFast});
      ExpectProducts(matrix, {20, kFast});
    }
  }
}

TEST_P(RowProductsTest, CheckModeIsTheSameAtEveryLevel) {
  RandomNumbers random(3);
  for (const MatrixShape& shape : AllFormats(35, 256, 64)) {
    ForgetCuts();
    const TestMatrix matrix = MakeMatrix(shape, 4);
    const std::vector<float> source = random.Vector(18 * 256);
    const ProductCase c = {18, {}};
    const std::vector<float> expected = Multiply(matrix, source, c);
    for (const ProductLevel level : SupportedProductLevels()) {
      const ForcedLevel forced(level);
      EXPECT_EQ(FirstDifference(Multiply(matrix, source, c), expected), -1);
    }
  }
}

TEST_P(RowProductsTest, BatchInvariantBitsDoNotDependOnTheOtherRows) {
  RandomNumbers random(12);
  for (const Arithmetic arithmetic : {Arithmetic::kFp32, Arithmetic::kBf16}) {
    const ProductOptions options = {arithmetic, true};
    for (const MatrixShape& shape : AllFormats(70, 320, 64)) {
      ForgetCuts();
      const TestMatrix matrix = MakeMatrix(shape, 10);
      const std::vector<float> source = random.Vector(40 * 320);
      for (const ProductLevel level : SupportedProductLevels()) {
        const ForcedLevel forced(level);
        const std::vector<float> all = Multiply(matrix, source, {40, options});
        for (const int64_t row : {0, 3, 5, 39}) {
          for (const int64_t count : {1, 2, 7, 19}) {
            const int64_t first = std::min(row, 40 - count);
            SCOPED_TRACE(testing::Message() << ProductLevelName(level) << ", " << Describe(shape)
                                            << ", " << count << " rows from " << first);
            EXPECT_EQ(FirstDifference(
                          Multiply(matrix, RowsOf(source, 320, first, count), {count, options}),
                          RowsOf(all, 70, first, count)),
                      -1);
          }
        }
      }
    }
  }
}

// Otherwise no test would notice that a level's kernels are never reached.
TEST(ChooseProductKernelTest, TakesTheFastestThatOptionsAllow) {
  const MatrixShape shape = ShapeOf(MatrixFormat::kNf4, 64, 256);
  for (const ProductLevel level : SupportedProductLevels()) {
    const ForcedLevel forced(level);
    const bool portable = level == ProductLevel::kPortable;
    const ProductKernel fused = portable ? ProductKernel::kExpanded : ProductKernel::kFused;
    const ProductKernel many =
        level == ProductLevel::kAmx ? ProductKernel::kTiles : ProductKernel::kExpanded;
    EXPECT_EQ(ChooseProductKernel(shape, {}, 1), ProductKernel::kExpanded);
    EXPECT_EQ(ChooseProductKernel(shape, {}, 128), ProductKernel::kExpanded);
    EXPECT_EQ(ChooseProductKernel(shape, kFast, 1), fused);
    EXPECT_EQ(ChooseProductKernel(shape, kFast, 128), many);
    EXPECT_EQ(ChooseProductKernel(shape, kFastInvariant, 1), fused);
    EXPECT_EQ(ChooseProductKernel(shape, kFastInvariant, 128), fused);
    EXPECT_EQ(ChooseProductKernel(ShapeOf(MatrixFormat::kF32, 64, 256), kFast, 128),
              ProductKernel::kExpanded);
  }
}

}  // namespace
}  // namespace nibble
