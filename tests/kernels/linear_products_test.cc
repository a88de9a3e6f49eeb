// What ProductOptions promise of linear layers, on every device: factors in bf16, and sums whose
// order depends on the matrix alone.

#include "tests/kernels/linear_fixture.h"

namespace nibble {
namespace {

constexpr ProductOptions kBf16 = {Arithmetic::kBf16, false};

class LinearProductsTest : public LinearFixture {
 protected:
  // Rounding both factors to bf16 changes a product by 2^-7 + 2^-16 of itself at most. Tensor cores
  // add 16 products and a sum at once: they cut each to the last of 24 bits of the largest, which
  // loses a unit (2^-23 of it) or less for each; the largest is no more than twice the sum of
  // magnitudes.
  static Expected Bf16DotOf(const TestMatrix& matrix, int64_t n, const float* source) {
    Expected expected;
    const int64_t columns = matrix.matrix.shape.columns;
    for (int64_t k = 0; k < columns; ++k) {
      const double product = double{source[k]} * matrix.At(n, k);
      expected.value += product;
      expected.tolerance += std::fabs(product);
    }
    expected.tolerance *=
        0x1p-7 + 0x1p-16 + static_cast<double>(columns + columns / 16 + 16) * 0x1p-22;
    return expected;
  }

  // Checks every `step`-th number.
  void ExpectProducts(const MatrixShape& shape, int64_t bound, int64_t live, size_t step = 1) {
    SCOPED_TRACE(testing::Message() << Describe(shape) << ", " << live << " rows of " << bound);
    ForgetCuts();
    const TestMatrix matrix = MakeMatrix(shape, static_cast<uint32_t>(bound));
    const std::vector<float> source =
        RandomNumbers(static_cast<uint32_t>(live)).Vector(live * shape.columns);
    const std::vector<float> found =
        Multiply(matrix, source, {bound, live, {.rows = 4}, {.rows = 3, .front = 1}, kBf16});
    std::vector<float> some;
    std::vector<Expected> expected;
    for (size_t i = 0; i < found.size(); i += step) {
      some.push_back(found[i]);
      const int64_t m = static_cast<int64_t>(i) / shape.rows;
      expected.push_back(Bf16DotOf(matrix, static_cast<int64_t>(i) % shape.rows,
                                   source.data() + m * shape.columns));
    }
    ExpectNear(some, expected);
  }
};
INSTANTIATE_TEST_SUITE_P(Host, LinearProductsTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, LinearProductsTest, testing::ValuesIn(CudaDevices()),
                         DeviceTestName);

constexpr int64_t kBounds[] = {1, 2, 3, 7, 8, 9, 16, 17, 33, 64, 65, 128, 512};

TEST_P(LinearProductsTest, RoundsFactorsToBf16ForEveryNumberOfRows) {
  for (const int64_t bound : kBounds) {
    for (const MatrixFormat format : {MatrixFormat::kNf4, MatrixFormat::kBf16}) {
      ExpectProducts(ShapeOf(format, 131, 320), bound, bound);
      ExpectProducts(ShapeOf(format, 131, 320), bound, bound - bound / 3);
    }
  }
}

// Less than a chunk, a chunk, several for each warp; parts of tiles.
TEST_P(LinearProductsTest, RoundsFactorsToBf16InEveryFormatAndShape) {
  for (const int64_t columns : {64, 192, 256, 576, 2112}) {
    for (const int64_t rows : {1, 16, 200}) {
      for (const MatrixShape& shape : AllFormats(rows, columns, 64)) {
        for (const int64_t bound : {2, 12, 20, 65}) {
          ExpectProducts(shape, bound, bound, 3);
        }
      }
    }
  }
}

// Also those that begin in the middle of a block or a byte.
TEST_P(LinearProductsTest, RoundsFactorsToBf16InBlocksOfEverySizeAndOddShapes) {
  for (const int64_t block_size : {32, 64, 128, 1024, 4096}) {
    for (const bool double_quantized : {false, true}) {
      for (const int64_t columns : {96, 127, 448}) {
        const MatrixShape shape =
            ShapeOf(MatrixFormat::kFp4, 40, columns, block_size, double_quantized);
        for (const int64_t bound : {1, 8, 40}) {
          ExpectProducts(shape, bound, bound);
        }
      }
    }
  }
}

// So many columns that activations do not fit into shared memory, and that CTAs share them.
TEST_P(LinearProductsTest, RoundsFactorsToBf16OfLongRows) {
  for (const MatrixFormat format : {MatrixFormat::kNf4, MatrixFormat::kF16}) {
    ExpectProducts(ShapeOf(format, 20, 40960), 1, 1);
    ExpectProducts(ShapeOf(format, 40, 12352), 8, 7);
    ExpectProducts(ShapeOf(format, 150, 12352), 16, 16, 5);
    ExpectProducts(ShapeOf(format, 300, 8256), 64, 50, 11);
  }
}

// Enough tiles to fill a GPU.
TEST_P(LinearProductsTest, RoundsFactorsToBf16OfManyTiles) {
  for (const MatrixFormat format : {MatrixFormat::kNf4, MatrixFormat::kBf16}) {
    ExpectProducts(ShapeOf(format, 4400, 320), 512, 500, 101);
    ExpectProducts(ShapeOf(format, 9000, 320), 3, 3);
  }
}

TEST_P(LinearProductsTest, MultipliesInBf16WhatIsNotAligned) {
  for (const MatrixShape& shape : AllFormats(20, 256, 64)) {
    const std::vector<float> source = RandomNumbers(4).Vector(3 * 256);
    for (const int64_t skew : {0, 1}) {
      for (const int64_t front : {0, 1}) {
        ForgetCuts();
        const TestMatrix matrix = MakeMatrix(shape, 3, skew);
        std::vector<Expected> expected;
        for (int64_t i = 0; i < 3 * 20; ++i) {
          expected.push_back(Bf16DotOf(matrix, i % 20, source.data() + i / 20 * 256));
        }
        SCOPED_TRACE(testing::Message() << Describe(shape) << " " << skew << " " << front);
        ExpectNear(Multiply(matrix, source, {4, 3, {.front = front}, {}, kBf16}), expected);
      }
    }
  }
}

// Whole numbers of few bits: every sum is exact, in every order.
TEST_P(LinearProductsTest, IsExactInBf16WhereNothingIsRounded) {
  RandomNumbers random(7);
  constexpr int64_t kRows = 150;
  constexpr int64_t kColumns = 704;
  TestMatrix matrix;
  matrix.matrix.shape = ShapeOf(MatrixFormat::kBf16, kRows, kColumns);
  std::vector<uint16_t> elements;
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    const auto value = static_cast<float>(random.Below(65) - 32);
    matrix.values.push_back(double{value});
    elements.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16));
  }
  matrix.matrix.planes.data = UploadVector(elements).address();
  for (const int64_t bound : {1, 5, 16, 32, 64, 130}) {
    std::vector<float> source;
    for (int64_t i = 0; i < bound * kColumns; ++i) {
      source.push_back(static_cast<float>(random.Below(65) - 32));
    }
    std::vector<float> expected;
    for (int64_t i = 0; i < bound * kRows; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < kColumns; ++k) {
        sum +=
            double{source[static_cast<size_t>(i / kRows * kColumns + k)]} * matrix.At(i % kRows, k);
      }
      expected.push_back(static_cast<float>(sum));
    }
    EXPECT_EQ(FirstDifference(Multiply(matrix, source, {bound, bound, {}, {}, kBf16}), expected),
              -1)
        << bound;
  }
}

TEST_P(LinearProductsTest, AddsABiasInBf16) {
  const TestMatrix matrix = MakeMatrix(ShapeOf(MatrixFormat::kNf4, 40, 4352), 9);
  std::vector<float> bias(40);
  for (size_t n = 0; n < bias.size(); ++n) {
    bias[n] = static_cast<float>(n) * 1000 - 20000;
  }
  for (const int64_t bound : {8, 16, 70}) {
    const std::vector<float> source = RandomNumbers(2).Vector(bound * 4352);
    std::vector<Expected> expected;
    for (int64_t i = 0; i < bound * 40; ++i) {
      expected.push_back(Bf16DotOf(matrix, i % 40, source.data() + i / 40 * 4352));
      const double added = double{bias[static_cast<size_t>(i % 40)]};
      expected.back().value += added;
      expected.back().tolerance += std::fabs(expected.back().value) * 2 * kUnit;
    }
    ExpectNear(Multiply(matrix, source, {bound, bound, {}, {}, kBf16},
                        {FloatType::kF32, UploadVector(bias)}),
               expected);
  }
}

TEST_P(LinearProductsTest, GivesARowTheSameBitsInBf16WhateverTheOthersAre) {
  RandomNumbers random(12);
  const TestMatrix matrix = MakeMatrix(ShapeOf(MatrixFormat::kNf4, 70, 4480), 10);
  for (const int64_t bound : {4, 8, 16, 32, 70}) {
    const std::vector<float> source = random.Vector(bound * 4480);
    const std::vector<float> all = Multiply(matrix, source, {bound, bound, {}, {}, kBf16});
    for (const int64_t row : {int64_t{0}, bound / 2, bound - 1}) {
      EXPECT_EQ(
          FirstDifference(Multiply(matrix, RowsOf(source, 4480, row, 1), {bound, 1, {}, {}, kBf16}),
                          RowsOf(all, 70, row, 1)),
          -1)
          << row << " of " << bound;
    }
  }
}

// Of equal and of different columns and formats; none is a whole number of tiles.
TEST_P(LinearProductsTest, MultipliesRowsWithSeveralMatrices) {
  const MatrixShape wide = ShapeOf(MatrixFormat::kNf4, 1900, 576);
  const MatrixShape narrow = ShapeOf(MatrixFormat::kNf4, 1, 576);
  const MatrixShape plain = ShapeOf(MatrixFormat::kBf16, 70, 576);
  const MatrixShape unusual = ShapeOf(MatrixFormat::kNf4, 33, 576, 64, true);
  for (const std::vector<MatrixShape>& shapes :
       {std::vector<MatrixShape>{narrow, wide, ShapeOf(MatrixFormat::kNf4, 300, 576)},
        {wide, narrow},
        {plain, plain, plain},
        {plain, wide},
        {unusual, narrow, narrow},
        {plain, plain, plain, plain}}) {
    for (const int64_t bound : {1, 8, 13, 33, 65}) {
      SCOPED_TRACE(testing::Message() << Describe(shapes[0]) << " first, bound " << bound);
      ForgetCuts();
      const int64_t live = bound - bound / 3;
      const std::vector<float> source = RandomNumbers(3).Vector(live * 576);
      const std::vector<float> bias = RandomNumbers(4).Vector(shapes[0].rows);
      const RowCount rows = UploadRowCount(bound, live);
      const Activations activations = UploadRows(bound, 1, 576, source, {.rows = 4});
      std::vector<TestMatrix> matrices;
      std::vector<LinearArgs> set;
      for (const MatrixShape& shape : shapes) {
        matrices.push_back(MakeMatrix(shape, static_cast<uint32_t>(set.size())));
        set.push_back({rows,
                       matrices.back().matrix,
                       {},
                       activations,
                       CutRows(bound, 1, shape.rows, {.rows = 3}),
                       kBf16});
      }
      set[0].bias = {FloatType::kF32, UploadVector(bias)};
      ExpectOk(ops().LinearSet(*queue_, set));
      for (size_t index = 0; index < set.size(); ++index) {
        const int64_t n_count = shapes[index].rows;
        std::vector<Expected> expected;
        for (int64_t i = 0; i < live * n_count; ++i) {
          expected.push_back(
              Bf16DotOf(matrices[index], i % n_count, source.data() + i / n_count * 576));
          if (index == 0) {
            expected.back().value += double{bias[static_cast<size_t>(i % n_count)]};
            expected.back().tolerance += std::fabs(expected.back().value) * 2 * kUnit;
          }
        }
        ExpectNear(DownloadRows(set[index].target, live), expected);
      }
      ExpectGuardsIntact();
    }
  }
}

TEST_P(LinearProductsTest, BatchInvariantProductsDoNotDependOnTheBound) {
  for (const Arithmetic arithmetic : {Arithmetic::kFp32, Arithmetic::kBf16}) {
    for (const MatrixFormat format : {MatrixFormat::kNf4, MatrixFormat::kF16}) {
      ForgetCuts();
      const ProductOptions products = {arithmetic, true};
      const TestMatrix matrix = MakeMatrix(ShapeOf(format, 70, 4480), 10);
      const std::vector<float> source = RandomNumbers(13).Vector(130 * 4480);
      const std::vector<float> all = Multiply(matrix, source, {130, 130, {}, {}, products});
      for (const int64_t bound : {1, 2, 8, 9, 20, 64, 65}) {
        EXPECT_EQ(FirstDifference(Multiply(matrix, RowsOf(source, 4480, 60, bound),
                                           {bound, bound, {}, {}, products}),
                                  RowsOf(all, 70, 60, bound)),
                  -1)
            << Describe(matrix.matrix.shape) << ", bound " << bound;
      }
    }
  }
}

TEST_P(LinearProductsTest, DoesNothingInBf16WithoutRows) {
  const TestMatrix matrix = MakeMatrix(ShapeOf(MatrixFormat::kNf4, 10, 2048), 11);
  for (const int64_t bound : {1, 8, 16, 70}) {
    EXPECT_TRUE(Multiply(matrix, {}, {bound, 0, {}, {}, kBf16}).empty());
  }
}

}  // namespace
}  // namespace nibble
