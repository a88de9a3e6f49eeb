// What the scale search is made of, once per target: elements and integers in vectors, the search
// for the nearest level, sums of products.

#if defined(NIBBLE_KERNELS_SIMD_SCALE_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_SIMD_SCALE_SEARCH_INL_H_
#undef NIBBLE_KERNELS_SIMD_SCALE_SEARCH_INL_H_
#else
#define NIBBLE_KERNELS_SIMD_SCALE_SEARCH_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/block_format.h"
#include "kernels/scale_search_table.h"
#include "kernels/simd_f32_codes-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Short = hn::Repartition<int16_t, Float>;  // Two vectors of Float.
using VShort = hn::Vec<Short>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Short()));

template <FloatType kType>
HWY_INLINE VFloat LoadElements(const std::byte* source) {
  const Float d;
  const auto* const bytes = reinterpret_cast<const uint8_t*>(source);
  if constexpr (kType == FloatType::kF32) {
    return hn::BitCast(d, hn::LoadU(hn::Repartition<uint8_t, Float>(), bytes));
  } else {
    const hn::Rebind<uint16_t, Float> d16;
    const auto bits = hn::BitCast(d16, hn::LoadU(hn::Repartition<uint8_t, decltype(d16)>(), bytes));
    if constexpr (kType == FloatType::kF16) {
      return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, Float>(), bits));
    } else {
      const hn::RebindToUnsigned<Int32> d32;
      return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
    }
  }
}

// To nearest even. Highway's spends three instructions on numbers beyond 32 bits.
//
// Requires: |value| < 2^31.
HWY_INLINE VInt32 Rounded(VFloat value) {
#if HWY_TARGET <= HWY_AVX2
  return VInt32{_mm256_cvtps_epi32(value.raw)};
#else
  return hn::NearestInt(value);
#endif
}

// Two vectors of integers that fit 16 bits as one.
HWY_INLINE VShort Demote(VInt32 low, VInt32 high) {
#if HWY_TARGET <= HWY_AVX2
  return VShort{_mm256_permute4x64_epi64(_mm256_packs_epi32(low.raw, high.raw), 0xd8)};
#else
  return Narrow(low, high);
#endif
}

// What step 3 finds out about a block.
struct SearchedBlock {
  float factor;         // f'
  bool is_turned;       // Its scale is negative.
  int64_t plain_error;  // The right side of step 5.
};

// x of a block, or -x: all ones turn it.
HWY_INLINE VShort Turned(VShort x, VShort turn) { return hn::Sub(hn::Xor(x, turn), turn); }
HWY_INLINE VShort TurnOf(bool is_turned) { return hn::Set(Short(), is_turned ? -1 : 0); }

// A table of eight 16-bit entries, to be looked up by bytes: entry i is bytes 2i and 2i + 1, so an
// index is the lane 0x0100 + i * 0x0202.
HWY_INLINE VShort TableOf(const int16_t* entries) { return hn::LoadDup128(Short(), entries); }
constexpr int16_t kEntryZero = 0x0100;
constexpr int16_t kEntryStep = 0x0202;

// Entries for the even levels and for the odd ones.
struct LevelTable {
  VShort even, odd;

  explicit HWY_INLINE LevelTable(const ByLevel<int16_t>& entries)
      : even(TableOf(entries[0].data())), odd(TableOf(entries[1].data())) {}
};

// Levels, as found by a search.
struct LevelIndex {
  VShort half;  // Index / 2, as an index of tables.
  hn::Mask<Short> is_odd;

  HWY_INLINE VShort LookUp(const LevelTable& table) const {
    return hn::IfThenElse(is_odd, hn::TableLookupBytes(table.odd, half),
                          hn::TableLookupBytes(table.even, half));
  }
  // The index in the low byte.
  HWY_INLINE VShort Index() const { return hn::Sub(half, hn::VecFromMask(Short(), is_odd)); }
};

// A binary search: how many thresholds x is above.
class LevelSearch {
 public:
  explicit HWY_INLINE LevelSearch(const ByLevel<int16_t>& thresholds) : table_(thresholds) {
    const Short d;
    first_ = hn::Set(d, thresholds[1][3]);
    second_low_ = hn::Set(d, thresholds[1][1]);
    second_high_ = hn::Set(d, thresholds[1][5]);
  }

  HWY_INLINE LevelIndex Find(VShort x) const {
    const Short d;
    const auto bit3 = hn::Gt(x, first_);
    const auto bit2 = hn::Gt(x, hn::IfThenElse(bit3, second_high_, second_low_));
    const VShort index2 = hn::Add(
        hn::IfThenElse(bit3, hn::Set(d, kEntryZero + 4 * kEntryStep), hn::Set(d, kEntryZero)),
        hn::IfThenElseZero(bit2, hn::Set(d, 2 * kEntryStep)));
    const auto bit1 = hn::Gt(x, hn::TableLookupBytes(table_.odd, index2));
    const VShort index3 = hn::Add(index2, hn::IfThenElseZero(bit1, hn::Set(d, kEntryStep)));
    return {index3, hn::Gt(x, hn::TableLookupBytes(table_.even, index3))};
  }

 private:
  LevelTable table_;
  VShort first_, second_low_, second_high_;
};

// Sums of products of 16-bit lanes.
class ProductSum {
 public:
  HWY_INLINE ProductSum()
      : low_(hn::Zero(Int32())), high_(hn::Zero(Int32())), wide_(hn::Zero(Int64())) {}

  // At most kAddsMax times between two calls of Widen(), with factors of at most 2^14 and 2^12, or
  // an error twice: (1 - kSearchFactorMin) * 2^14 and the margin. A lane of 32 bits takes two
  // products an addition: 2 * 4 * (0.75 * 2^14 + 2)^2 < 2^31.
  static constexpr int64_t kAddsMax = 4;
  HWY_INLINE void Add(VShort a, VShort b) {
    low_ = hn::ReorderWidenMulAccumulate(Int32(), a, b, low_, high_);
  }
  HWY_INLINE void Widen() {
    Widen(low_);
    if (!HWY_ARCH_X86) {  // Where an addition goes to the low one alone.
      Widen(high_);
    }
  }
  HWY_INLINE int64_t Sum() const { return hn::GetLane(hn::SumOfLanes(Int64(), wide_)); }

 private:
  using Int64 = hn::Rebind<int64_t, hn::Half<Int32>>;

  HWY_INLINE void Widen(VInt32& sums) {
    const Int64 d;
    const hn::Half<Int32> half;
    wide_ = hn::Add(wide_, hn::Add(hn::PromoteTo(d, hn::LowerHalf(half, sums)),
                                   hn::PromoteTo(d, hn::UpperHalf(half, sums))));
    sums = hn::Zero(Int32());
  }

  VInt32 low_, high_;
  hn::Vec<Int64> wide_;
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // NIBBLE_KERNELS_SIMD_SCALE_SEARCH_INL_H_
