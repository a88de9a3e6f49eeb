// The fast block quantizers of the host, by SIMD level at run time (AVX-512, AVX2, SSE4, NEON, or
// portable). Bit for bit the reference of block_quantize_ref.h, for every input. Contract:
// block_format.h, nf4_format.h, fp4_format.h.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"

namespace nibble {

// Pointers to bytes and codes need not be aligned, `scales` to 4 bytes. Single-threaded; planes of
// several threads must not overlap.
//
// Returns: the index of the first NaN or Inf, or kAllFinite.
uint64_t QuantizeBlocks(Codebook codebook, int64_t block_size, FloatType type,
                        const std::byte* source,  // type [n]
                        int64_t element_count,    // n
                        uint8_t* codes,           // [(n + 1) / 2]
                        float* scales);           // [ceil(n / block_size)]

void DequantizeBlocks(Codebook codebook, int64_t block_size, FloatType type,
                      const uint8_t* codes,   // [(n + 1) / 2]
                      const float* scales,    // [ceil(n / block_size)]
                      int64_t element_count,  // n
                      std::byte* target);     // type [n]

// Returns: the index of the first NaN or Inf, or kAllFinite.
uint64_t FindFirstNonFinite(FloatType type, const std::byte* source, int64_t element_count);

// The SIMD level in use, for people: "AVX2".
const char* SimdLevelName();

}  // namespace nibble
