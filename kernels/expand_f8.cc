// Expanding 8-bit floats run by run: the elements of a row that share a scale. A float is put
// together from the bits of its 8-bit form; subnormal ones are a whole number times their unit.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/expand_f8.cc"

#include "kernels/expand_f8.h"

#include <algorithm>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_quantize_ref.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Float = hn::CappedTag<float, 16>;
using Int32 = hn::RebindToSigned<Float>;

#if HWY_TARGET != HWY_SCALAR

template <F8Type kType>
HWY_INLINE hn::Vec<Float> Values(hn::Vec<Int32> bits) {
  const Float d;
  const Int32 di;
  constexpr int kShift = 23 - MantissaBits(kType);
  constexpr int32_t kBias = (127 - ExponentBias(kType)) << 23;
  const auto magnitude = hn::And(bits, hn::Set(di, 0x7f));
  const auto sign = hn::ShiftLeft<24>(hn::AndNot(hn::Set(di, 0x7f), bits));
  const auto shifted = hn::ShiftLeft<kShift>(magnitude);
  const auto normal = hn::Add(shifted, hn::Set(di, kBias));
  const auto unit = hn::Set(d, F8Value(kType, 1));
  const auto subnormal = hn::BitCast(di, hn::Mul(hn::ConvertTo(d, magnitude), unit));
  const auto is_subnormal = hn::Lt(magnitude, hn::Set(di, 1 << MantissaBits(kType)));
  auto value = hn::IfThenElse(is_subnormal, subnormal, normal);
  if constexpr (kType == F8Type::kE4M3) {
    const auto is_nan = hn::Eq(magnitude, hn::Set(di, 0x7f));
    value = hn::Or(value, hn::IfThenElseZero(is_nan, hn::Set(di, 0x7fffffff)));
  } else {  // The largest exponent there is the largest here.
    const auto is_special = hn::Gt(magnitude, hn::Set(di, 0x7b));
    value = hn::Or(value, hn::IfThenElseZero(is_special, hn::Set(di, 0x7f800000)));
  }
  return hn::BitCast(d, hn::Or(value, sign));
}

template <F8Type kType>
HWY_INLINE int64_t ExpandVectors(const uint8_t* source, int64_t count, float scale, float* target) {
  const Float d;
  const hn::Rebind<uint8_t, Float> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto scales = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto bits = hn::PromoteTo(Int32(), hn::LoadU(d8, source + i));
    hn::StoreU(hn::Mul(Values<kType>(bits), scales), d, target + i);
  }
  return i;
}

#else

template <F8Type kType>
int64_t ExpandVectors(const uint8_t*, int64_t, float, float*) {
  return 0;
}

#endif  // HWY_TARGET != HWY_SCALAR

void ExpandRun(F8Type type, const uint8_t* source, int64_t count, float scale, float* target) {
  const int64_t done = type == F8Type::kE4M3
                           ? ExpandVectors<F8Type::kE4M3>(source, count, scale, target)
                           : ExpandVectors<F8Type::kE5M2>(source, count, scale, target);
  for (int64_t i = done; i < count; ++i) {
    target[i] = F8Value(type, source[i]) * scale;
  }
}

void ExpandRange(const F8Range& range, const uint8_t* source, const std::byte* scales,
                 float* target) {
  int64_t row = range.first_index / range.columns;
  int64_t column = range.first_index % range.columns;
  for (int64_t i = 0; i < range.element_count;) {
    const int64_t scale_row = row / range.block_rows - range.first_scale_row();
    const int64_t scale_column = column / range.block_columns;
    const int64_t run_end = std::min((scale_column + 1) * range.block_columns, range.columns);
    const int64_t count = std::min(run_end - column, range.element_count - i);
    const float scale =
        LoadElement(range.scale_type, scales, scale_row * range.scale_columns() + scale_column);
    ExpandRun(range.type, source + i, count, scale, target + i);
    i += count;
    column += count;
    if (column == range.columns) {
      column = 0;
      ++row;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(ExpandRange);

void ExpandF8Range(const F8Range& range, const uint8_t* source, const std::byte* scales,
                   float* target) {
  HWY_DYNAMIC_DISPATCH(ExpandRange)(range, source, scales, target);
}

}  // namespace nibble
#endif  // HWY_ONCE
