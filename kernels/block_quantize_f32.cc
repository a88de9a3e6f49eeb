// Quantizing F32: the products with the block's reciprocal, and a binary search of 32-bit lanes
// among the codebook's own thresholds.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/block_quantize_f32.cc"

#include <algorithm>
#include <bit>
#include <cstring>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_span.h"
#include "kernels/gpu_reciprocal.h"
#include "kernels/simd_blocks-inl.h"
#include "kernels/simd_f32_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // The portable fallback is the reference.

uint64_t QuantizeFullBlocksF32(const BlockSpan& span) {
  return QuantizeSlowly(span, 0, span.full_blocks() * span.block_size);
}

#else

namespace hn = hwy::HWY_NAMESPACE;
constexpr int32_t kScaleMin = 0x08800000;  // 2^-110: no product near a threshold is subnormal.
constexpr int32_t kScaleMax = 0x7e800000;  // 2^126: larger scales have the reciprocal 0.

HWY_INLINE VFloat LoadFloats(const std::byte* source) {
  const hn::Repartition<uint8_t, Float> d8;
  return hn::BitCast(Float(), hn::LoadU(d8, reinterpret_cast<const uint8_t*>(source)));
}

// The bits of the largest magnitude of a block, NaN being larger than all.
HWY_INLINE int32_t LargestMagnitude(const std::byte* source, int64_t block_size) {
  const Int32 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VInt32 largest = hn::Zero(d);
  for (int64_t i = 0; i < block_size; i += lanes) {
    const VInt32 bits = hn::BitCast(d, LoadFloats(source + 4 * i));
    largest = hn::Max(largest, hn::And(bits, hn::Set(d, 0x7fffffff)));
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

template <Codebook kCodebook>
HWY_INLINE void StoreCodes(const std::byte* source, int64_t block_size, float reciprocal,
                           uint8_t* HWY_RESTRICT codes) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Float()));
  const VFloat vreciprocal = hn::Set(Float(), reciprocal);
  const auto codes_at = [&](int64_t index) HWY_ATTR {
    return F32Search<kCodebook>::Codes(LoadFloats(source + 4 * index), vreciprocal);
  };
  for (int64_t i = 0; i < block_size; i += 4 * lanes) {
    StoreNibbles(Narrow(codes_at(i), codes_at(i + lanes)),
                 Narrow(codes_at(i + 2 * lanes), codes_at(i + 3 * lanes)), codes + i / 2);
  }
}

template <Codebook kCodebook>
uint64_t QuantizeBlocksOf(const BlockSpan& span) {
  const int64_t block_size = span.block_size;
  uint64_t first_non_finite = kAllFinite;
  for (int64_t block = 0; block < span.full_blocks(); ++block) {
    const std::byte* const source = span.source + block * block_size * 4;
    uint8_t* const codes = span.codes + block * block_size / 2;
    const int32_t magnitude = LargestMagnitude(source, block_size);
    if (magnitude >= kScaleMin && magnitude <= kScaleMax) [[likely]] {
      const float scale = std::bit_cast<float>(magnitude);
      span.scales[block] = scale;
      StoreCodes<kCodebook>(source, block_size, GpuReciprocal(scale), codes);
    } else if (magnitude == 0) {
      span.scales[block] = 0.0f;
      std::memset(codes, 0, static_cast<size_t>(block_size / 2));
    } else {
      first_non_finite = std::min(
          first_non_finite, QuantizeSlowly(span, block * block_size, (block + 1) * block_size));
    }
  }
  return first_non_finite;
}

uint64_t QuantizeFullBlocksF32(const BlockSpan& span) {
  return span.codebook == Codebook::kNf4 ? QuantizeBlocksOf<Codebook::kNf4>(span)
                                         : QuantizeBlocksOf<Codebook::kFp4>(span);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(QuantizeFullBlocksF32);

uint64_t QuantizeFullBlocksF32(const BlockSpan& span) {
  return HWY_DYNAMIC_DISPATCH(QuantizeFullBlocksF32)(span);
}

}  // namespace nibble
#endif  // HWY_ONCE
