// Products of activation rows with a weight matrix on the host: which kernel, and how the work is
// cut for threads.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/matrix.h"
#include "kernels/product_level.h"

namespace nibble {

enum class ProductKernel {
  kExpanded,  // linear.h: exact products of fp32 numbers. For everything.
  kFused,     // fused_rows.h
  kTiles,     // tile_products.h
};

// The fastest kernel that `options` allow where `row_bound` rows go to a matrix: the bound of a
// step, not the rows that there are, so that a row's bits do not depend on them.
ProductKernel ChooseProductKernel(const MatrixShape& shape, const ProductOptions& options,
                                  int64_t row_bound);

// The rows of activations that go to one matrix, as its kernel wants them. First all of them are
// prepared, piece by piece, then ranges of the matrix's rows are multiplied: both by any threads.
class RowProducts {
 public:
  // The row pointers must outlive this.
  RowProducts(const MatrixShape& shape, ProductKernel kernel, std::span<const float* const> sources,
              std::span<float* const> targets);

  // Bytes that Prepare() fills; the caller's, as nothing in a step should be allocated.
  int64_t prepared_bytes() const;
  int64_t piece_count() const;  // Of preparing.

  // Requires: 0 <= piece < piece_count(); `prepared` of prepared_bytes(), at a multiple of 64.
  void Prepare(int64_t piece, std::byte* prepared) const;

  // Rows of the matrix that a thread should take at once.
  int64_t Grain(int thread_count) const;

  // Computes targets[..][n] for n in [first, last), after all pieces were prepared.
  void Multiply(const MatrixPlanes& planes, const std::byte* prepared, int64_t first,
                int64_t last) const;

 private:
  MatrixShape shape_;
  std::span<const float* const> sources_;
  std::span<float* const> targets_;
  ProductLevel level_;
  ProductKernel kernel_;
};

// Memory for prepared rows, which the calling thread keeps from step to step.
std::byte* PreparedMemory(int64_t bytes);

}  // namespace nibble
