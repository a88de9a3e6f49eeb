// What the SIMD files of the block kernels share: the full blocks of a tensor, and the way out for
// blocks that their fast paths do not cover.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/ops.h"

namespace nibble {

// The arguments of QuantizeBlocks() as its parts pass them on.
struct BlockSpan {
  Codebook codebook;
  int64_t block_size;
  FloatType type;
  const std::byte* source;
  int64_t element_count;
  uint8_t* codes;
  float* scales;

  int64_t full_blocks() const { return element_count / block_size; }
};

// Quantizes elements [begin, end) with the reference, begin on a block boundary: the short last
// block, and blocks with NaN, Inf, or a scale so small or large that fast arithmetic would not
// flush as CUDA does. Weights have few of them.
//
// Returns: the index of the first NaN or Inf in the range, or kAllFinite.
inline uint64_t QuantizeSlowly(const BlockSpan& span, int64_t begin, int64_t end) {
  const std::byte* const source = span.source + begin * BytesPerElement(span.type);
  QuantizeRef(span.codebook, span.block_size, span.type, source, end - begin,
              span.codes + begin / 2, span.scales + begin / span.block_size);
  const uint64_t first = FindNonFiniteRef(span.type, source, end - begin);
  return first == kAllFinite ? kAllFinite : first + static_cast<uint64_t>(begin);
}

// Quantize the full blocks of `span`. Returns: the index of the first NaN or Inf there, or
// kAllFinite.
uint64_t QuantizeFullBlocksNf4Bf16(const BlockSpan& span);  // NF4 from BF16
uint64_t QuantizeFullBlocks16Bit(const BlockSpan& span);    // NF4 from F16, FP4 from both
uint64_t QuantizeFullBlocksF32(const BlockSpan& span);

}  // namespace nibble
