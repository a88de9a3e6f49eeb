// The fast scale search of the host, by SIMD level at run time. Bit for bit the reference of
// scale_search_ref.h, for every input. Contract: scale_search_table.h.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"

namespace nibble {

// As QuantizeBlocks() (block_quantize.h), but for `search`, which is not kNone.
//
// Returns: the index of the first NaN or Inf, or kAllFinite.
// Cost: about 2 ns an element on one core with AVX2; kernels/README.md has figures.
uint64_t SearchBlockScales(ScaleSearch search, Codebook codebook, int64_t block_size,
                           FloatType type,
                           const std::byte* source,  // type [n]
                           int64_t element_count,    // n
                           uint8_t* codes,           // [(n + 1) / 2]
                           float* scales);           // [ceil(n / block_size)]

}  // namespace nibble
