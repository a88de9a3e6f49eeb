#include "kernels/block_quantize.h"

#include <algorithm>

#include "hwy/targets.h"
#include "kernels/block_span.h"

namespace nibble {
namespace {

uint64_t QuantizeFullBlocks(const BlockSpan& span) {
  if (span.type == FloatType::kF32) {
    return QuantizeFullBlocksF32(span);
  }
  return span.codebook == Codebook::kNf4 && span.type == FloatType::kBf16
             ? QuantizeFullBlocksNf4Bf16(span)
             : QuantizeFullBlocks16Bit(span);
}

}  // namespace

uint64_t QuantizeBlocks(Codebook codebook, int64_t block_size, FloatType type,
                        const std::byte* source, int64_t element_count, uint8_t* codes,
                        float* scales) {
  const BlockSpan span = {codebook, block_size, type, source, element_count, codes, scales};
  const int64_t full_end = span.full_blocks() * block_size;
  uint64_t first = QuantizeFullBlocks(span);
  if (full_end < element_count) {
    first = std::min(first, QuantizeSlowly(span, full_end, element_count));
  }
  return first;
}

const char* SimdLevelName() {
  const int64_t in_use = hwy::SupportedTargets() & HWY_TARGETS;  // Highway knows better ones too.
  return hwy::TargetName(in_use & -in_use);                      // The best has the lowest bit.
}

}  // namespace nibble
