// Step 4 of the scale search, once per target: the codes under a scale, and their error.

#if defined(NIBBLE_KERNELS_SIMD_SCALE_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_SIMD_SCALE_CODES_INL_H_
#undef NIBBLE_KERNELS_SIMD_SCALE_CODES_INL_H_
#else
#define NIBBLE_KERNELS_SIMD_SCALE_CODES_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/block_format.h"
#include "kernels/scale_search_table.h"
#include "kernels/simd_blocks-inl.h"
#include "kernels/simd_f32_codes-inl.h"
#include "kernels/simd_scale_search-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// round(numbers * unit), sixteen of them.
HWY_INLINE void StoreProducts(const float* numbers, float unit, int16_t* HWY_RESTRICT rounded) {
  const Float d;
  const VFloat vunit = hn::Set(d, unit);
  for (size_t i = 0; i < 16; i += 2 * hn::Lanes(d)) {
    const VFloat low = hn::Mul(hn::Load(d, numbers + i), vunit);
    const VFloat high = hn::Mul(hn::Load(d, numbers + i + hn::Lanes(d)), vunit);
    hn::Store(Demote(Rounded(low), Rounded(high)), Short(), rounded + i);
  }
}

// The codes under a scale, by integers where those can tell. v * (1 / scale) > t is about
// x > t * f' * 2^14; x is off by 0.502 at most, the fp32 products and the scale by 0.02. So an x
// that is above `certain` has v above t; one that is not above `possible` has not. (A compiler may
// make one operation of product and offset: all that changes is which elements are left open.)
struct CodeBorders {
  alignas(64) ByLevel<int16_t> certain;
  alignas(64) ByLevel<int16_t> possible;

  HWY_INLINE CodeBorders(const ScaleSearchTable& table, float unit) {
    const Float d;
    const VFloat vunit = hn::Set(d, unit);
    const VFloat offset = hn::Set(d, 0.05f);  // Rounding itself adds 0.5.
    const VInt32 one = hn::Set(Int32(), 1);
    const auto store = [&](size_t i) HWY_ATTR {
      const size_t j = i + hn::Lanes(d);
      const VFloat low = hn::Mul(hn::Load(d, table.borders[0].data() + i), vunit);
      const VFloat high = hn::Mul(hn::Load(d, table.borders[0].data() + j), vunit);
      hn::Store(Demote(Rounded(hn::Add(low, offset)), Rounded(hn::Add(high, offset))), Short(),
                certain[0].data() + i);
      hn::Store(Demote(hn::Sub(Rounded(hn::Sub(low, offset)), one),
                       hn::Sub(Rounded(hn::Sub(high, offset)), one)),
                Short(), possible[0].data() + i);
    };
    for (size_t i = 0; i < 16; i += 2 * hn::Lanes(d)) {
      store(i);
    }
    possible[1][7] = INT16_MAX;  // Nothing is beyond the last level.
  }
};

// In the low bytes.
template <Codebook kCodebook>
HWY_INLINE VShort CodesOf(const ScaleSearchTable& table, const LevelIndex& index) {
  if constexpr (kCodebook == Codebook::kNf4) {
    return index.Index();
  } else {
    const Short d;
    const hn::Repartition<uint8_t, Short> d8;
    const VShort low_byte = hn::And(index.Index(), hn::Set(d, 0x00ff));
    return hn::BitCast(
        d, hn::TableLookupBytes(hn::LoadDup128(d8, table.codes), hn::BitCast(d8, low_byte)));
  }
}

// Where integers cannot tell: codes of two vectors of elements by the fp32 search. Returns their
// error.
template <Codebook kCodebook, FloatType kType>
HWY_NOINLINE int64_t StoreCodesByF32(const ScaleSearchTable& table, float unit, float reciprocal,
                                     VShort turn, const std::byte* source, const int16_t* x,
                                     uint8_t* codes) {
  constexpr int64_t kHalfBytes = kLanes / 2 * BytesPerElement(kType);
  const Short d;
  const VFloat vreciprocal = hn::Set(Float(), reciprocal);
  alignas(64) int16_t levels[16];
  StoreProducts(table.values_by_code, unit, levels);
  ProductSum errors;
  const auto codes_at = [&](const std::byte* at, const int16_t* x_at) HWY_ATTR {
    const VFloat low = LoadElements<kType>(at);
    const VFloat high = LoadElements<kType>(at + kHalfBytes);
    const VShort found = Demote(F32Search<kCodebook>::Codes(low, vreciprocal),
                                F32Search<kCodebook>::Codes(high, vreciprocal));
    const VShort entry = hn::Add(hn::Mul(hn::And(found, hn::Set(d, 7)), hn::Set(d, kEntryStep)),
                                 hn::Set(d, kEntryZero));
    const VShort level = hn::IfThenElse(hn::Gt(found, hn::Set(d, 7)),
                                        hn::TableLookupBytes(TableOf(levels + 8), entry),
                                        hn::TableLookupBytes(TableOf(levels), entry));
    const VShort most = hn::Add(hn::Abs(hn::Sub(Turned(hn::Load(d, x_at), turn), level)),
                                hn::Set(d, kSearchErrorMargin));
    errors.Add(most, most);
    return found;
  };
  const VShort low = codes_at(source, x);
  StoreNibbles(low, codes_at(source + 2 * kHalfBytes, x + kLanes), codes);
  errors.Widen();
  return errors.Sum();
}

// Writes the codes under `scale` to `codes` and returns their error.
template <Codebook kCodebook, FloatType kType>
HWY_INLINE int64_t StoreCodes(const ScaleSearchTable& table, const SearchedBlock& block,
                              float scale, const std::byte* source, const int16_t* HWY_RESTRICT x,
                              int64_t block_size, uint8_t* HWY_RESTRICT codes) {
  const Short d;
  const float unit = block.factor * kSearchUnit;
  const float reciprocal = 1.0f / scale;
  const VShort turn = TurnOf(block.is_turned);
  const CodeBorders borders(table, unit);
  const LevelSearch search(borders.certain);
  const LevelTable possible(borders.possible);
  alignas(64) ByLevel<int16_t> block_levels;
  StoreProducts(table.values[0].data(), unit, block_levels[0].data());
  const LevelTable levels(block_levels);
  ProductSum errors;
  int64_t other_errors = 0;
  for (int64_t i = 0; i < block_size; i += 2 * kLanes) {
    const VShort x0 = Turned(hn::Load(d, x + i), turn);
    const VShort x1 = Turned(hn::Load(d, x + i + kLanes), turn);
    const LevelIndex index0 = search.Find(x0);
    const LevelIndex index1 = search.Find(x1);
    const auto is_open =
        hn::Or(hn::Gt(x0, index0.LookUp(possible)), hn::Gt(x1, index1.LookUp(possible)));
    if (!hn::AllFalse(d, is_open)) [[unlikely]] {  // About one in forty, of normal data.
      other_errors += StoreCodesByF32<kCodebook, kType>(
          table, unit, reciprocal, turn, source + i * BytesPerElement(kType), x + i, codes + i / 2);
      continue;
    }
    const VShort margin = hn::Set(d, kSearchErrorMargin);
    const VShort most0 = hn::Add(hn::Abs(hn::Sub(x0, index0.LookUp(levels))), margin);
    const VShort most1 = hn::Add(hn::Abs(hn::Sub(x1, index1.LookUp(levels))), margin);
    errors.Add(most0, most0);
    errors.Add(most1, most1);
    errors.Widen();
    StoreNibbles(CodesOf<kCodebook>(table, index0), CodesOf<kCodebook>(table, index1),
                 codes + i / 2);
  }
  return errors.Sum() + other_errors;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // NIBBLE_KERNELS_SIMD_SCALE_CODES_INL_H_
