// The codes of 32-bit lanes, once per target: products with a block's reciprocal, and a binary
// search among the codebook's own thresholds.

#if defined(NIBBLE_KERNELS_SIMD_F32_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_SIMD_F32_CODES_INL_H_
#undef NIBBLE_KERNELS_SIMD_F32_CODES_INL_H_
#else
#define NIBBLE_KERNELS_SIMD_F32_CODES_INL_H_
#endif

#include <cfloat>

#include "hwy/highway.h"
#include "kernels/block_format.h"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
// A quarter of a block of 32 at most, since four vectors of codes are packed at once.
using Float = hn::CappedTag<float, 8>;
using VFloat = hn::Vec<Float>;
using Int32 = hn::RebindToSigned<Float>;
using VInt32 = hn::Vec<Int32>;

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
struct F32Search;

template <>
struct F32Search<Codebook::kNf4> {
  static HWY_INLINE VInt32 Codes(VFloat value, VFloat reciprocal) {
    const Float d;
    constexpr const auto& kThresholds = kNf4Thresholds;
    alignas(16) static constexpr float kThird[4] = {kThresholds[1], kThresholds[5], kThresholds[9],
                                                    kThresholds[13]};
    alignas(16) static constexpr float kFourthLow[4] = {kThresholds[0], kThresholds[2],
                                                        kThresholds[4], kThresholds[6]};
    alignas(16) static constexpr float kFourthHigh[4] = {kThresholds[8], kThresholds[10],
                                                         kThresholds[12], kThresholds[14]};
    const VFloat x = hn::Mul(value, reciprocal);
    const auto bit3 = hn::Gt(x, hn::Set(d, kThresholds[7]));
    const auto bit2 =
        hn::Gt(x, hn::IfThenElse(bit3, hn::Set(d, kThresholds[11]), hn::Set(d, kThresholds[3])));
    const auto bit1 = hn::Gt(x, LookUp(kThird, Index(bit3, bit2)));
    const VInt32 index = Index(bit2, bit1);  // Within the half of the table that bit3 chose.
    const auto bit0 =
        hn::Gt(x, hn::IfThenElse(bit3, LookUp(kFourthHigh, index), LookUp(kFourthLow, index)));
    return hn::Or(hn::Or(Bit(bit3, 8), Bit(bit2, 4)), hn::Or(Bit(bit1, 2), Bit(bit0, 1)));
  }
};

template <>
struct F32Search<Codebook::kFp4> {
  static HWY_INLINE VInt32 Codes(VFloat value, VFloat reciprocal) {
    const Float d;
    const Int32 di;
    constexpr const auto& kThresholds = kFp4Thresholds;
    alignas(16) static constexpr float kThird[4] = {kThresholds[0], kThresholds[2], kThresholds[4],
                                                    kThresholds[6]};
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
    const auto bit2 = hn::Gt(magnitude, hn::Set(d, kThresholds[3]));
    const auto bit1 = hn::Gt(
        magnitude, hn::IfThenElse(bit2, hn::Set(d, kThresholds[5]), hn::Set(d, kThresholds[1])));
    const auto bit0 = hn::Gt(magnitude, LookUp(kThird, Index(bit2, bit1)));
    const VInt32 rank = Index(bit1, bit0);  // Within the half of the order that bit2 chose.
    const VInt32 code = hn::IfThenElse(hn::RebindMask(di, bit2),
                                       hn::TableLookupBytes(hn::LoadDup128(di, kOrderHigh), rank),
                                       hn::TableLookupBytes(hn::LoadDup128(di, kOrderLow), rank));
    return hn::Or(code, Bit(is_negative, 8));
  }
};

// Two vectors of codes as one of 16-bit lanes, the lower half of each lane.
HWY_INLINE auto Narrow(VInt32 low, VInt32 high) {
  const hn::Repartition<int16_t, Int32> d16;
  return hn::ConcatEven(d16, hn::BitCast(d16, high), hn::BitCast(d16, low));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // NIBBLE_KERNELS_SIMD_F32_CODES_INL_H_
