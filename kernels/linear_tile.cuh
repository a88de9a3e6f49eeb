// Products of a matrix with many rows: a CTA brings a tile of the matrix to fp32 in shared memory
// and multiplies it with up to 64 rows.

#pragma once

#include <cstdint>

#include "kernels/linear_few.cuh"
#include "kernels/matrix_elements.cuh"
#include "kernels/step_rows.cuh"

namespace nibble {

inline constexpr int kTileThreads = 256;
inline constexpr int kTileRows = 64;      // Of activations.
inline constexpr int kTileColumns = 128;  // Rows of the matrix.
inline constexpr int kTileDepth = 16;     // Of K.
inline constexpr int kThreadRows = 4;     // A thread's sums are 4 x 8.
inline constexpr int kThreadColumns = 8;
// A warp has 8 rows, so that warps without rows have nothing to do.
inline constexpr int kColumnThreads = kTileColumns / kThreadColumns;
static_assert(kColumnThreads * (kTileRows / kThreadRows) == kTileThreads);
static_assert(kTileColumns * kTileDepth == kTileThreads * kVectorElements);
static_assert(kTileRows * kTileDepth == kTileThreads * 4, "a thread loads four numbers of a row");
inline constexpr int kTilePadding = 4;  // Keeps rows aligned to 16 bytes, and off the same banks.

// Shared memory of a CTA: 13 KiB.
struct TileShared {
  float weights[kTileDepth][kTileColumns + kTilePadding];
  float rows[kTileDepth][kTileRows + kTilePadding];
  float table[kCodeValues];
  const float* sources[kTileRows];
  float* targets[kTileRows];
};

// What a thread has loaded of the next tile while the CTA multiplies this one.
struct TilePiece {
  float weights[kVectorElements];
  float rows[4];
};

template <ElementKind kKind, bool kWide>
__device__ __forceinline__ void LoadPiece(const MatrixForm& form, const MatrixPlanes& planes,
                                          const TileShared& shared, int64_t first, int row_count,
                                          int64_t k, TilePiece& piece) {
  const int thread = static_cast<int>(threadIdx.x);
  LoadRowVector<kKind, kWide>(form, planes, shared.table, first + thread / 2,
                              k + thread % 2 * kVectorElements, piece.weights);
  const int m = thread / 4;
  const int64_t begin = k + thread % 4 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    piece.rows[i] = 0;
  }
  if (m < row_count) {
    const float* const source = shared.sources[m];
    if (kWide && begin + 4 <= form.columns) {
      const float4 numbers = *reinterpret_cast<const float4*>(source + begin);
      piece.rows[0] = numbers.x, piece.rows[1] = numbers.y;
      piece.rows[2] = numbers.z, piece.rows[3] = numbers.w;
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      piece.rows[i] = begin + i < form.columns ? source[begin + i] : 0.0f;
    }
  }
}

__device__ __forceinline__ void StorePiece(const TilePiece& piece, TileShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    shared.weights[thread % 2 * kVectorElements + i][thread / 2] = piece.weights[i];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    shared.rows[thread % 4 * 4 + i][thread / 4] = piece.rows[i];
  }
}

__device__ __forceinline__ void MultiplyPiece(const TileShared& shared, int row, int column,
                                              float (&sums)[kThreadRows][kThreadColumns]) {
#pragma unroll
  for (int k = 0; k < kTileDepth; ++k) {
    const float4 x = *reinterpret_cast<const float4*>(&shared.rows[k][row]);
    const float4 low = *reinterpret_cast<const float4*>(&shared.weights[k][column]);
    const float4 high =
        *reinterpret_cast<const float4*>(&shared.weights[k][column + kTileColumns / 2]);
    const float rows[kThreadRows] = {x.x, x.y, x.z, x.w};
    const float weights[kThreadColumns] = {low.x,  low.y,  low.z,  low.w,
                                           high.x, high.y, high.z, high.w};
#pragma unroll
    for (int m = 0; m < kThreadRows; ++m) {
#pragma unroll
      for (int c = 0; c < kThreadColumns; ++c) {
        sums[m][c] = __fmaf_rn(rows[m], weights[c], sums[m][c]);
      }
    }
  }
}

// shared.targets[m][n] = shared.sources[m] . row n (+ bias[n]) for 128 rows of the matrix from
// `first` on. A sum runs over k in order, whatever the other rows are.
//
// Requires: shared.sources, targets and table are written, and a __syncthreads() has followed; if
// kWide, HasWideRows() and sources are aligned to 16 bytes. Ends with a __syncthreads().
template <ElementKind kKind, bool kWide>
__device__ __forceinline__ void MultiplyTile(const MatrixForm& form, const MatrixPlanes& planes,
                                             WeightElements bias, int64_t first, int row_count,
                                             TileShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / kColumnThreads * kThreadRows;
  // Columns 4 i to 4 i + 3 and 64 more: neighbours read neighbouring 16 bytes.
  const int column = thread % kColumnThreads * (kThreadColumns / 2);
  const bool has_rows = thread / kWarpThreads * (kTileRows / 8) < row_count;
  float sums[kThreadRows][kThreadColumns] = {};
  TilePiece piece;
  LoadPiece<kKind, kWide>(form, planes, shared, first, row_count, 0, piece);
  for (int64_t k = 0; k < form.columns; k += kTileDepth) {
    StorePiece(piece, shared);
    __syncthreads();
    if (k + kTileDepth < form.columns) {
      LoadPiece<kKind, kWide>(form, planes, shared, first, row_count, k + kTileDepth, piece);
    }
    if (has_rows) {
      MultiplyPiece(shared, row, column, sums);
    }
    __syncthreads();
  }
#pragma unroll
  for (int m = 0; m < kThreadRows; ++m) {
#pragma unroll
    for (int c = 0; c < kThreadColumns; ++c) {
      constexpr int kHalf = kThreadColumns / 2;
      const int64_t n = first + column + (c < kHalf ? c : kTileColumns / 2 + c - kHalf);
      if (row + m < row_count && n < form.rows) {
        shared.targets[row + m][n] = sums[m][c] + (bias.data == nullptr ? 0.0f : bias.At(n));
      }
    }
  }
  __syncthreads();  // The next tile's rows may be written.
}

}  // namespace nibble
