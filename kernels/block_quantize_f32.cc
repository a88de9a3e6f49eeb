// Quantizing F32: the products with the block's reciprocal, and a binary search of 32-bit lanes
// among the codebook's own thresholds.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/block_quantize_f32.cc"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cstring>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_span.h"
#include "kernels/fp4_format.h"
#include "kernels/gpu_reciprocal.h"
#include "kernels/nf4_format.h"
#include "kernels/simd_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // The portable fallback is the reference.

uint64_t QuantizeFullBlocksF32(const BlockSpan& span) {
  return QuantizeSlowly(span, 0, span.full_blocks() * span.block_size);
}

#else

namespace hn = hwy::HWY_NAMESPACE;
// A quarter of a block of 32 at most, since four vectors of codes are packed at once.
using Float = hn::CappedTag<float, 8>;
using VFloat = hn::Vec<Float>;
using Int32 = hn::RebindToSigned<Float>;
using VInt32 = hn::Vec<Int32>;

constexpr int32_t kScaleMin = 0x08800000;  // 2^-110: no product near a threshold is subnormal.
constexpr int32_t kScaleMax = 0x7e800000;  // 2^126: larger scales have the reciprocal 0.

// Entry i of a table of four floats is bytes 4i to 4i + 3.
constexpr int32_t kIndexZero = 0x03020100;
constexpr int32_t kIndexStep = 0x04040404;

HWY_INLINE VFloat LookUp(const float* table, VInt32 index) {  // table [4]
  const Float d;
  const VInt32 bits = hn::BitCast(Int32(), hn::LoadDup128(d, table));
  return hn::BitCast(d, hn::TableLookupBytes(bits, index));
}

// The table index 2 * high + low.
HWY_INLINE VInt32 Index(hn::Mask<Float> high, hn::Mask<Float> low) {
  const Int32 d;
  return hn::Add(hn::IfThenElse(hn::RebindMask(d, high), hn::Set(d, kIndexZero + 2 * kIndexStep),
                                hn::Set(d, kIndexZero)),
                 hn::IfThenElseZero(hn::RebindMask(d, low), hn::Set(d, kIndexStep)));
}

HWY_INLINE VInt32 Bit(hn::Mask<Float> mask, int32_t bit) {
  const Int32 d;
  return hn::IfThenElseZero(hn::RebindMask(d, mask), hn::Set(d, bit));
}

template <Codebook kCodebook>
struct Search;

template <>
struct Search<Codebook::kNf4> {
  static HWY_INLINE VInt32 Codes(VFloat value, VFloat reciprocal) {
    const Float d;
    constexpr const auto& t = kNf4Thresholds;
    alignas(16) static constexpr float kThird[4] = {t[1], t[5], t[9], t[13]};
    alignas(16) static constexpr float kFourthLow[4] = {t[0], t[2], t[4], t[6]};
    alignas(16) static constexpr float kFourthHigh[4] = {t[8], t[10], t[12], t[14]};
    const VFloat x = hn::Mul(value, reciprocal);
    const auto bit3 = hn::Gt(x, hn::Set(d, t[7]));
    const auto bit2 = hn::Gt(x, hn::IfThenElse(bit3, hn::Set(d, t[11]), hn::Set(d, t[3])));
    const auto bit1 = hn::Gt(x, LookUp(kThird, Index(bit3, bit2)));
    const VInt32 index = Index(bit2, bit1);  // Within the half of the table that bit3 chose.
    const auto bit0 =
        hn::Gt(x, hn::IfThenElse(bit3, LookUp(kFourthHigh, index), LookUp(kFourthLow, index)));
    return hn::Or(hn::Or(Bit(bit3, 8), Bit(bit2, 4)), hn::Or(Bit(bit1, 2), Bit(bit0, 1)));
  }
};

template <>
struct Search<Codebook::kFp4> {
  static HWY_INLINE VInt32 Codes(VFloat value, VFloat reciprocal) {
    const Float d;
    const Int32 di;
    constexpr const auto& t = kFp4Thresholds;
    alignas(16) static constexpr float kThird[4] = {t[0], t[2], t[4], t[6]};
    // The code of a rank below four, and of the others.
    alignas(16) static constexpr int32_t kOrderLow[4] = {kFp4Order[0], kFp4Order[1], kFp4Order[2],
                                                         kFp4Order[3]};
    alignas(16) static constexpr int32_t kOrderHigh[4] = {kFp4Order[4], kFp4Order[5], kFp4Order[6],
                                                          kFp4Order[7]};
    // Subnormal operands and results are zeros, which have no sign.
    const VFloat normal_min = hn::Set(d, FLT_MIN);
    const VFloat x = hn::Mul(value, reciprocal);
    const VFloat magnitude = hn::Abs(x);
    const auto is_normal =
        hn::And(hn::Ge(hn::Abs(value), normal_min), hn::Ge(magnitude, normal_min));
    const auto is_negative = hn::And(is_normal, hn::Lt(x, hn::Zero(d)));
    const auto bit2 = hn::Gt(magnitude, hn::Set(d, t[3]));
    const auto bit1 = hn::Gt(magnitude, hn::IfThenElse(bit2, hn::Set(d, t[5]), hn::Set(d, t[1])));
    const auto bit0 = hn::Gt(magnitude, LookUp(kThird, Index(bit2, bit1)));
    const VInt32 rank = Index(bit1, bit0);  // Within the half of the order that bit2 chose.
    const VInt32 code = hn::IfThenElse(hn::RebindMask(di, bit2),
                                       hn::TableLookupBytes(hn::LoadDup128(di, kOrderHigh), rank),
                                       hn::TableLookupBytes(hn::LoadDup128(di, kOrderLow), rank));
    return hn::Or(code, Bit(is_negative, 8));
  }
};

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

// Two vectors of codes as one of 16-bit lanes, the lower half of each lane.
HWY_INLINE auto Narrow(VInt32 low, VInt32 high) {
  const hn::Repartition<int16_t, Int32> d16;
  return hn::ConcatEven(d16, hn::BitCast(d16, high), hn::BitCast(d16, low));
}

template <Codebook kCodebook>
HWY_INLINE void StoreCodes(const std::byte* source, int64_t block_size, float reciprocal,
                           uint8_t* HWY_RESTRICT codes) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Float()));
  const VFloat vreciprocal = hn::Set(Float(), reciprocal);
  const auto codes_at = [&](int64_t index) HWY_ATTR {
    return Search<kCodebook>::Codes(LoadFloats(source + 4 * index), vreciprocal);
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
