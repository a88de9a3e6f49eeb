// Products of many rows of activations with a matrix by AMX tiles: pieces of the matrix are
// expanded to bf16 in the cache and multiplied with all rows, also in bf16; sums are fp32.
//
//   panel        bf16 [32 rows of the matrix, K piece]      in the first-level cache
//   activations  bf16 [K / 32, M / 16, 16, 16, 2]           tiles of 16 pairs of k by 16 rows
//   sums         fp32 [N piece / 16, M / 16, 16, 16]        in the second-level cache
//
// Both factors have k in the same order, which for 4 bits is within each 64 first the even elements
// and then the odd ones, as lookups give them.

#pragma once

#include <cstdint>

#include "kernels/matrix.h"
#include "kernels/product_level.h"

namespace nibble {

inline constexpr int64_t kTileRows = 16;  // Of activations that share a tile.

// Whether `level` has tiles. Not for F32, which is not rounded to bf16.
bool HasTileProducts(ProductLevel level, const MatrixShape& shape);

// Bytes of the prepared activations of `row_count` rows.
int64_t TileSourceBytes(const MatrixShape& shape, int64_t row_count);

// Prepares rows [first, last), first a multiple of kTileRows, last too or the number of rows.
//
// Requires: HasTileProducts(level, shape).
void PrepareTileRows(const MatrixShape& shape,
                     const float* const* sources,  // [M], of [K]
                     int64_t row_count,            // M
                     int64_t first, int64_t last,
                     uint16_t* prepared);  // TileSourceBytes(shape, M), 64-byte aligned

// targets[m][n] = row m of the activations . row n of the matrix, for n in [first, last), on the
// calling thread.
void MultiplyTiles(const Matrix& matrix,
                   const uint16_t* prepared,  // As PrepareTileRows() leaves it.
                   int64_t row_count,         // M
                   float* const* targets,     // [M], of [N]
                   int64_t first, int64_t last);

// How many rows of the matrix a thread takes at once.
int64_t TileGrain(int64_t rows, int thread_count);

}  // namespace nibble
