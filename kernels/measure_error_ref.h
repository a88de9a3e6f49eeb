// The obviously right, slow version of error statistics. Contract: error_sums.h.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/error_sums.h"

namespace nibble {

void MeasureErrorRef(Codebook codebook, int64_t block_size, FloatType type,
                     const std::byte* source,  // type [n]
                     const uint8_t* codes,     // [(n + 1) / 2]
                     const float* scales,      // [ceil(n / block_size)]
                     int64_t element_count,    // n
                     ErrorSums* sums);         // [ErrorChunkCount(n)]

}  // namespace nibble
