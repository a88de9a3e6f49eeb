// The obviously right, slow version of the scale search: what every fast one is tested against.
// Contract: scale_search_table.h.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"

namespace nibble {

// As QuantizeRef() for ScaleSearch::kNone. FP4 takes kSigned for kPositive.
void ScaleSearchRef(ScaleSearch search, Codebook codebook, int64_t block_size, FloatType type,
                    const std::byte* source,  // type [n]
                    int64_t element_count,    // n
                    uint8_t* codes,           // [(n + 1) / 2]
                    float* scales);           // [ceil(n / block_size)]

}  // namespace nibble
