// Products of a matrix with up to eight rows: bound by reading the matrix, which is read once.

#pragma once

#include <cstdint>

#include "kernels/matrix_elements.cuh"
#include "kernels/step_rows.cuh"

namespace nibble {

inline constexpr int kFewThreads = 128;
inline constexpr int kFewWarps = kFewThreads / kWarpThreads;
inline constexpr int kFewRowsMax = 8;  // Of activations, whose sums a thread keeps.
inline constexpr int kFewColumns = 4;  // Rows of the matrix that a CTA multiplies.
inline constexpr int kFewChunk =
    kWarpThreads * kVectorElements;  // Of K, that a warp reads at once.

// Shared memory of a CTA.
struct FewShared {
  float table[kCodeValues];
  float sums[kFewWarps][kFewRowsMax * kFewColumns];
};

// Eight numbers of a row of activations, of which `remaining` are there.
template <bool kWideSource>
__device__ __forceinline__ void LoadSource(const float* source, int64_t remaining,
                                           float (&values)[kVectorElements]) {
  if constexpr (kWideSource) {
    const float4 low = *reinterpret_cast<const float4*>(source);
    const float4 high = *(reinterpret_cast<const float4*>(source) + 1);
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
  } else {
#pragma unroll
    for (int i = 0; i < kVectorElements; ++i) {
      values[i] = i < remaining ? source[i] : 0.0f;
    }
  }
}

// targets[m][n] = sources[m] . row n, for n from `first` on, by a whole CTA. K is cut into chunks
// that warps take in turn; a lane adds its eight columns of each chunk one after the other; then
// lanes are added in a tree, and warps in order. Nothing of that depends on the number of rows.
//
// Requires: 0 < row_count <= kRows; if kWide, HasWideRows() and sources are aligned to 16 bytes.
template <ElementKind kKind, bool kWide, int kRows, typename SourceOf, typename StoreSum>
__device__ __forceinline__ void MultiplyFew(const MatrixForm& form, const MatrixPlanes& planes,
                                            int64_t first, int row_count, SourceOf source_of,
                                            StoreSum store, FewShared& shared) {
  LoadTable(form, shared.table);
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  float sums[kRows][kFewColumns] = {};
  for (int64_t k = warp * kFewChunk + lane * kVectorElements; k < form.columns;
       k += kFewWarps * kFewChunk) {
    float weights[kFewColumns][kVectorElements];
#pragma unroll
    for (int c = 0; c < kFewColumns; ++c) {
      LoadRowVector<kKind, kWide>(form, planes, shared.table, first + c, k, weights[c]);
    }
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      if (m < row_count) {
        float x[kVectorElements];
        LoadSource<kWide>(source_of(m) + k, form.columns - k, x);
#pragma unroll
        for (int c = 0; c < kFewColumns; ++c) {
#pragma unroll
          for (int i = 0; i < kVectorElements; ++i) {
            sums[m][c] = __fmaf_rn(x[i], weights[c][i], sums[m][c]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
#pragma unroll
    for (int c = 0; c < kFewColumns; ++c) {
      const float sum = WarpSum(sums[m][c]);
      if (lane == 0) {
        shared.sums[warp][m * kFewColumns + c] = sum;
      }
    }
  }
  __syncthreads();
  const int item = static_cast<int>(threadIdx.x);
  const int m = item / kFewColumns;
  const int64_t n = first + item % kFewColumns;
  if (m < row_count && n < form.rows) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kFewWarps; ++w) {
      sum += shared.sums[w][item];
    }
    store(m, n, sum);
  }
}

}  // namespace nibble
