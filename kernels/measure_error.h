// Error statistics on the host. Bit for bit the reference of measure_error_ref.h. Contract:
// error_sums.h.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/error_sums.h"

namespace nibble {

// Pointers to bytes and codes need not be aligned.
void MeasureBlockError(Codebook codebook, int64_t block_size, FloatType type,
                       const std::byte* source,  // type [n]
                       const uint8_t* codes,     // [(n + 1) / 2]
                       const float* scales,      // [ceil(n / block_size)]
                       int64_t element_count,    // n
                       ErrorSums* sums);         // [ErrorChunkCount(n)]

}  // namespace nibble
