// Elements of a weight matrix in fp32, on the host.

#pragma once

#include <cstdint>

#include "kernels/matrix.h"

namespace nibble {

// Reads elements [first, first + count) of `matrix`, flattened row-major. In 4 bits an element is
// the product of its codebook's value and its scale, rounded once.
//
// Requires: they lie within the matrix.
void ReadElements(const Matrix& matrix, int64_t first, int64_t count, float* target);

// Reads the scales of blocks [first, first + count) of a matrix in 4 bits, however they are stored.
void ReadScales(const Matrix& matrix, int64_t first, int64_t count, float* target);

// An element of a vector.
float ReadElement(const WeightVector& vector, int64_t index);

}  // namespace nibble
