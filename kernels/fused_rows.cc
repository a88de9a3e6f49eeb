#include "kernels/fused_rows.h"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "kernels/bytes.h"
#include "kernels/fp4_format.h"
#include "kernels/matrix_rows.h"
#include "kernels/nf4_format.h"

namespace nibble {
namespace {

constexpr int64_t kRun = 128;  // Of the widest level.
constexpr int64_t kLanes = 16;
constexpr int64_t kRowsAtOnce = 16;  // Of the matrix, whose scales are read together.

bool UsesFp16(ProductLevel level) { return level >= ProductLevel::kFp16 && fp16::IsCompiled(); }

// The scales of rows as the kernels read them: where they lie, or decoded into a buffer.
class RowScales {
 public:
  explicit RowScales(const Matrix& matrix)
      : matrix_(matrix), shift_(std::countr_zero(static_cast<uint64_t>(matrix.shape.block_size))) {
    if (matrix.shape.double_quantized) {
      // A row that begins within a block touches one more than it fills.
      width_ = CeilDivide(matrix.shape.columns, matrix.shape.block_size) + 1;
      decoded_.resize(static_cast<size_t>(kRowsAtOnce * width_));
    }
  }

  // Of row `n`, the `place`th of those read together.
  FourBitRow Read(int64_t n, int64_t place) {
    const MatrixShape& shape = matrix_.shape;
    const int64_t begin = n * shape.columns;
    const int64_t block = begin >> shift_;
    const auto* const codes = std::bit_cast<const uint8_t*>(matrix_.planes.data) + begin / 2;
    const int64_t offset = begin & (shape.block_size - 1);
    if (!shape.double_quantized) {
      return {codes, std::bit_cast<const float*>(matrix_.planes.scales) + block, offset};
    }
    float* const decoded = decoded_.data() + place * width_;
    ReadScales(matrix_, block, CeilDivide(begin + shape.columns, shape.block_size) - block,
               decoded);
    return {codes, decoded, offset};
  }

 private:
  const Matrix& matrix_;
  const int shift_;
  int64_t width_ = 0;
  std::vector<float> decoded_;
};

void MultiplyFourBit(ProductLevel level, const Matrix& matrix, const float* prepared,
                     float* const* targets, int64_t row_count, int64_t first, int64_t last) {
  const MatrixShape& shape = matrix.shape;
  const auto& codebook = shape.format == MatrixFormat::kNf4 ? kNf4Values : kFp4Values;
  const FourBitProducts products = {
      shape.columns,        std::countr_zero(static_cast<uint64_t>(shape.block_size)),
      codebook.data(),      prepared,
      FusedRowWidth(shape), row_count};
  const auto multiply = level == ProductLevel::kAvx2 ? &avx2::MultiplyFourBit
                        : UsesFp16(level)            ? &fp16::MultiplyFourBit
                                                     : &avx512::MultiplyFourBit;
  RowScales scales(matrix);
  std::array<FourBitRow, kRowsAtOnce> rows;
  for (int64_t n = first; n < last; n += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, last - n);
    for (int64_t i = 0; i < count; ++i) {
      rows[static_cast<size_t>(i)] = scales.Read(n + i, i);
    }
    multiply(products, rows.data(), count, targets, n);
  }
}

}  // namespace

#if !defined(__x86_64__)  // No level but the portable one is ever chosen there.
namespace avx2 {
void PrepareFourBitRow(const float*, int64_t, float*) {}
void MultiplyFourBit(const FourBitProducts&, const FourBitRow*, int64_t, float* const*, int64_t) {}
void MultiplyWide(const Matrix&, const float*, int64_t, float* const*, int64_t, int64_t, int64_t) {}
}  // namespace avx2
namespace avx512 {
void PrepareFourBitRow(const float*, int64_t, float*) {}
void MultiplyFourBit(const FourBitProducts&, const FourBitRow*, int64_t, float* const*, int64_t) {}
void MultiplyWide(const Matrix&, const float*, int64_t, float* const*, int64_t, int64_t, int64_t) {}
}  // namespace avx512
#endif

bool HasFusedRows(ProductLevel level, const MatrixShape& shape) {
  if (level == ProductLevel::kPortable) {
    return false;
  }
  return !IsFourBit(shape.format) || shape.columns % 64 == 0 ||
         (shape.block_size == 32 && shape.columns % 32 == 0);
}

int64_t FusedRowWidth(const MatrixShape& shape) {
  return RoundUp(shape.columns, IsFourBit(shape.format) ? kRun : kLanes);
}

void PrepareFusedRow(ProductLevel level, const MatrixShape& shape, const float* source,
                     float* prepared) {
  if (!IsFourBit(shape.format)) {
    std::copy_n(source, shape.columns, prepared);
    std::fill(prepared + shape.columns, prepared + FusedRowWidth(shape), 0.0f);
  } else if (level == ProductLevel::kAvx2) {
    avx2::PrepareFourBitRow(source, shape.columns, prepared);
  } else if (UsesFp16(level)) {
    fp16::PrepareFourBitRow(source, shape.columns, FusedRowWidth(shape), prepared);
  } else {
    avx512::PrepareFourBitRow(source, shape.columns, prepared);
  }
}

void MultiplyFusedRows(ProductLevel level, const Matrix& matrix, const float* prepared,
                       float* const* targets, int64_t row_count, int64_t first, int64_t last) {
  const int64_t width = FusedRowWidth(matrix.shape);
  for (int64_t m = 0; m < row_count; m += kFusedRowsMax) {
    const int64_t rows = std::min(kFusedRowsMax, row_count - m);
    if (IsFourBit(matrix.shape.format)) {
      MultiplyFourBit(level, matrix, prepared + m * width, targets + m, rows, first, last);
    } else {
      const auto multiply =
          level == ProductLevel::kAvx2 ? &avx2::MultiplyWide : &avx512::MultiplyWide;
      multiply(matrix, prepared + m * width, width, targets + m, rows, first, last);
    }
  }
}

}  // namespace nibble
