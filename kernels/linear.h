// Products with weight matrices on the host: rows of the matrix are brought to fp32 in the cache
// and multiplied with every row of activations.
//
// A sum over k is kept in kLinearLanes partial sums, of every k with the same remainder, which are
// added pairwise at the end. So a result depends neither on the number of rows nor on threads, and
// on the SIMD level only by whether it fuses products and sums.

#pragma once

#include <cstdint>

#include "kernels/matrix.h"
#include "kernels/worker_pool.h"

namespace nibble {

inline constexpr int64_t kLinearLanes = 16;

// F16 to fp32, exactly.
void ExpandF16(const uint16_t* source, int64_t count, float* target);

// The dot product of two vectors in the order above.
float DotProduct(const float* left, const float* right, int64_t count);

// target_rows[m][n] = source_rows[m] . row n of the matrix, for n in [first, last), on
// the calling thread.
void MultiplyRows(const Matrix& matrix, const float* const* source_rows, float* const* target_rows,
                  int64_t row_count, int64_t first, int64_t last);

// How many rows of a matrix of K columns MultiplyRows holds in the cache at once: a good grain.
int64_t LinearGrain(int64_t columns);

}  // namespace nibble
