// Weight matrices of every format with the numbers that they stand for, decoded here from the
// formats' pages and by none of the code under test.

#pragma once

#include <string>

#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "kernels/scale_format.h"
#include "tests/kernels/step_fixture.h"

namespace nibble {

struct TestMatrix {
  Matrix matrix;
  std::vector<double> values;  // [N, K]

  double At(int64_t n, int64_t k) const {
    return values[static_cast<size_t>(n * matrix.shape.columns + k)];
  }
};

inline MatrixShape ShapeOf(MatrixFormat format, int64_t rows, int64_t columns,
                           int64_t block_size = 64, bool double_quantized = false) {
  return {format, rows, columns, block_size, double_quantized};
}

// All formats, with both kinds of scales.
inline std::vector<MatrixShape> AllFormats(int64_t rows, int64_t columns, int64_t block_size) {
  std::vector<MatrixShape> shapes;
  for (const MatrixFormat format : {MatrixFormat::kF32, MatrixFormat::kF16, MatrixFormat::kBf16}) {
    shapes.push_back(ShapeOf(format, rows, columns));
  }
  for (const MatrixFormat format : {MatrixFormat::kNf4, MatrixFormat::kFp4}) {
    for (const bool double_quantized : {false, true}) {
      shapes.push_back(ShapeOf(format, rows, columns, block_size, double_quantized));
    }
  }
  return shapes;
}

inline std::string Describe(const MatrixShape& shape) {
  static constexpr const char* kNames[] = {"f32", "f16", "bf16", "nf4", "fp4"};
  return std::string(kNames[static_cast<size_t>(shape.format)]) +
         (shape.double_quantized ? " double" : "") + " [" + std::to_string(shape.rows) + ", " +
         std::to_string(shape.columns) + "] block " + std::to_string(shape.block_size);
}

class MatrixTest : public StepTest {
 protected:
  // Random numbers; those of a seed are the same wherever the planes lie. The planes lie
  // `skew_elements` elements (two codes) beyond a multiple of 64 bytes.
  TestMatrix MakeMatrix(const MatrixShape& shape, uint32_t seed, int64_t skew_elements = 0) {
    RandomNumbers random(seed);
    TestMatrix test;
    test.matrix.shape = shape;
    const auto count = static_cast<size_t>(shape.element_count());
    switch (shape.format) {
      case MatrixFormat::kF32: {
        const std::vector<float> elements = random.Vector(shape.element_count());
        test.values.assign(elements.begin(), elements.end());
        test.matrix.planes.data = UploadVector(elements, skew_elements * 4).address();
        return test;
      }
      case MatrixFormat::kF16:
      case MatrixFormat::kBf16: {
        std::vector<uint16_t> elements(count);
        for (uint16_t& element : elements) {
          element = shape.format == MatrixFormat::kF16 ? RandomF16(random, test.values)
                                                       : RandomBf16(random, test.values);
        }
        test.matrix.planes.data = UploadVector(elements, skew_elements * 2).address();
        return test;
      }
      default:
        break;
    }
    const std::vector<float> scales = MakeScales(random, skew_elements, test.matrix);
    std::vector<uint8_t> codes((count + 1) / 2);
    for (uint8_t& pair : codes) {
      pair = static_cast<uint8_t>(random.Below(256));
    }
    const auto& book = shape.format == MatrixFormat::kNf4 ? kNf4Values : kFp4Values;
    for (size_t i = 0; i < count; ++i) {
      const size_t code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
      const float value = book[code] * scales[i / static_cast<size_t>(shape.block_size)];
      test.values.push_back(double{value});
    }
    test.matrix.planes.data = UploadVector(codes, skew_elements).address();
    return test;
  }

 private:
  // 1.m * 2^e with e from -8 to -1.
  static uint16_t RandomF16(RandomNumbers& random, std::vector<double>& values) {
    const int64_t mantissa = random.Below(1024);
    const int64_t exponent = random.Below(8) - 8;
    const int64_t sign = random.Below(2);
    values.push_back((sign == 0 ? 1 : -1) * std::ldexp(1 + static_cast<double>(mantissa) / 1024,
                                                       static_cast<int>(exponent)));
    return static_cast<uint16_t>(sign << 15 | (exponent + 15) << 10 | mantissa);
  }
  static uint16_t RandomBf16(RandomNumbers& random, std::vector<double>& values) {
    const int64_t mantissa = random.Below(128);
    const int64_t exponent = random.Below(8) - 8;
    const int64_t sign = random.Below(2);
    values.push_back((sign == 0 ? 1 : -1) * std::ldexp(1 + static_cast<double>(mantissa) / 128,
                                                       static_cast<int>(exponent)));
    return static_cast<uint16_t>(sign << 15 | (exponent + 127) << 7 | mantissa);
  }

  std::vector<float> MakeScales(RandomNumbers& random, int64_t skew, Matrix& matrix) {
    const int64_t blocks = BlockCount(matrix.shape.element_count(), matrix.shape.block_size);
    MatrixPlanes& planes = matrix.planes;
    std::vector<float> scales = random.Vector(blocks, 0.5f);
    if (!matrix.shape.double_quantized) {
      planes.scales = UploadVector(scales, skew * 4).address();
      return scales;
    }
    const std::vector<float> maxima = random.Vector(ScaleBlockCount(blocks), 0.25f);
    const float mean = 0.3f;
    std::vector<float> map(kScaleMap.begin(), kScaleMap.end());
    map[17] = 0.4321f;  // A checkpoint's own map need not be the usual one.
    std::vector<uint8_t> codes(static_cast<size_t>(blocks));
    for (size_t block = 0; block < codes.size(); ++block) {
      codes[block] = static_cast<uint8_t>(random.Below(256));
      const float product = map[codes[block]] * maxima[block / 256];
      scales[block] = product + mean;
    }
    planes.scales = UploadVector(codes, skew).address();
    planes.scale_maxima = UploadVector(maxima).address();
    planes.scale_mean = UploadVector(std::vector<float>{mean}).address();
    planes.scale_map = UploadVector(map).address();
    return scales;
  }
};

// source . row n of a matrix. Whatever the order, fp32 loses at most a unit of each partial sum for
// every one of K products and sums, and as much for what is added at the end.
inline Expected DotOf(const TestMatrix& matrix, int64_t n, const float* source, double added = 0) {
  Expected expected = {added, std::fabs(added)};
  for (int64_t k = 0; k < matrix.matrix.shape.columns; ++k) {
    const double product = double{source[k]} * matrix.At(n, k);
    expected.value += product;
    expected.tolerance += std::fabs(product);
  }
  expected.tolerance *= static_cast<double>(matrix.matrix.shape.columns + 2) * kUnit;
  return expected;
}

}  // namespace nibble
