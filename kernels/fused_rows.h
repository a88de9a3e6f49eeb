// Products of a few rows of activations with a matrix whose elements are decoded in registers: each
// byte of the matrix is read once, for all rows, and nothing is written but the result. Bound by
// memory at batch 1.
//
// Products and sums are fp32. In 4 bits a sum over a block is multiplied by the block's scale,
// which no check mode does; so the error is that of fp32 sums, with two more roundings a block. The
// order of a row's sums depends on the matrix and the level alone, not on the other rows.

#pragma once

#include <cstdint>

#include "kernels/matrix.h"
#include "kernels/product_level.h"

namespace nibble {

inline constexpr int64_t kFusedRowsMax = 4;  // That one pass over the matrix serves.

// Whether `level` has a kernel. In 4 bits runs of 64 elements (32, if blocks have as many) must lie
// in one row and one block.
bool HasFusedRows(ProductLevel level, const MatrixShape& shape);

// Numbers of an activation row as the kernel wants it: in the order of the codes' nibbles, with
// zeros behind.
int64_t FusedRowWidth(const MatrixShape& shape);

// Requires: HasFusedRows(level, shape).
void PrepareFusedRow(ProductLevel level, const MatrixShape& shape,
                     const float* source,  // [K]
                     float* prepared);     // [FusedRowWidth(shape)]

// targets[m][n] = row m of `prepared` . row n of the matrix, for n in [first, last), on the calling
// thread.
//
// Requires: HasFusedRows(level, shape of the matrix).
void MultiplyFusedRows(ProductLevel level, const Matrix& matrix,
                       const float* prepared,  // [M, FusedRowWidth], 64-byte aligned
                       float* const* targets,  // [M], of [N]
                       int64_t row_count,      // M
                       int64_t first, int64_t last);

// A row of a matrix in 4 bits as the kernels of the levels read it.
struct FourBitRow {
  const uint8_t* codes;
  const float* scales;  // Of the block in which the row begins, and of those behind it.
  int64_t offset;       // Of the row's first element in that block.
};

// What the levels implement; a kernel takes one to kFusedRowsMax rows, and two rows of the matrix
// at once (the last may be the same as the first).
struct FourBitProducts {
  int64_t columns;        // K
  int block_shift;        // log2 of the block size.
  const float* codebook;  // [16]
  const float* prepared;  // [M, width]
  int64_t width;
  int64_t row_count;  // M
};

namespace avx2 {
void PrepareFourBitRow(const float* source, int64_t columns, float* prepared);
void MultiplyFourBit(const FourBitProducts& products, const FourBitRow* rows, int64_t count,
                     float* const* targets, int64_t n);
void MultiplyWide(const Matrix& matrix, const float* prepared, int64_t width, float* const* targets,
                  int64_t row_count, int64_t first, int64_t last);
}  // namespace avx2

namespace avx512 {
void PrepareFourBitRow(const float* source, int64_t columns, float* prepared);
void MultiplyFourBit(const FourBitProducts& products, const FourBitRow* rows, int64_t count,
                     float* const* targets, int64_t n);
void MultiplyWide(const Matrix& matrix, const float* prepared, int64_t width, float* const* targets,
                  int64_t row_count, int64_t first, int64_t last);
}  // namespace avx512

namespace fp16 {    // Of the matrices in 4 bits; for the others AVX-512 alone is as fast as memory.
bool IsCompiled();  // Else AVX-512 alone is taken.
void PrepareFourBitRow(const float* source, int64_t columns, int64_t width, float* prepared);
void MultiplyFourBit(const FourBitProducts& products, const FourBitRow* rows, int64_t count,
                     float* const* targets, int64_t n);
}  // namespace fp16

}  // namespace nibble
