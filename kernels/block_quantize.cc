#include "kernels/block_quantize.h"

#include <algorithm>

#include "hwy/targets.h"
#include "kernels/block_span.h"

namespace nibble {

uint64_t QuantizeBlocks(Codebook codebook, int64_t block_size, FloatType type,
                        const std::byte* source, int64_t element_count, uint8_t* codes,
                        float* scales) {
  const BlockSpan span = {codebook, block_size, type, source, element_count, codes, scales};
  const int64_t full_end = span.full_blocks() * block_size;
  uint64_t first =
      type == FloatType::kF32 ? QuantizeFullBlocksF32(span) : QuantizeFullBlocks16Bit(span);
  if (full_end < element_count) {
    first = std::min(first, QuantizeSlowly(span, full_end, element_count));
  }
  return first;
}

const char* SimdLevelName() {
  const int64_t supported = hwy::SupportedTargets();
  return hwy::TargetName(supported & -supported);  // The best has the lowest bit.
}

}  // namespace nibble
