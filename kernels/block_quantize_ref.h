// The obviously right, slow version of the block quantizers: what every fast one is tested against.
// Contract: block_format.h, nf4_format.h, fp4_format.h.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"

namespace nibble {

// Reads element `index` of `source`, which need not be aligned.
float LoadElement(FloatType type, const std::byte* source, int64_t index);

// Writes `value` rounded to nearest even; every NaN becomes the GPU's, all ones but the sign.
void StoreElement(FloatType type, float value, std::byte* target, int64_t index);

void QuantizeRef(Codebook codebook, int64_t block_size, FloatType type,
                 const std::byte* source,  // type [n]
                 int64_t element_count,    // n
                 uint8_t* codes,           // [(n + 1) / 2]
                 float* scales);           // [ceil(n / block_size)]

void DequantizeRef(Codebook codebook, int64_t block_size, FloatType type,
                   const uint8_t* codes,   // [(n + 1) / 2]
                   const float* scales,    // [ceil(n / block_size)]
                   int64_t element_count,  // n
                   std::byte* target);     // type [n]

// Returns: the index of the first NaN or Inf, or kAllFinite.
uint64_t FindNonFiniteRef(FloatType type, const std::byte* source, int64_t element_count);

}  // namespace nibble
