// Per-target part of the SIMD quantizers: 16-bit lanes of codes to packed bytes.

#if defined(NIBBLE_KERNELS_NIBBLE_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_NIBBLE_PACK_INL_H_
#undef NIBBLE_KERNELS_NIBBLE_PACK_INL_H_
#else
#define NIBBLE_KERNELS_NIBBLE_PACK_INL_H_
#endif

#include "hwy/highway.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Packs the low bytes of two vectors of 16-bit lanes, `low` first, and stores as many bytes as one
// has lanes: the even code of a pair goes to the high nibble. High bytes of lanes are ignored.
template <class V>
HWY_INLINE void StoreNibbles(V low, V high, uint8_t* HWY_RESTRICT target) {
  using D = hn::DFromV<V>;
  const hn::Repartition<uint8_t, D> d8;
  const hn::RebindToUnsigned<D> du16;
  const hn::Rebind<uint8_t, D> half;
  const auto bytes = hn::ConcatEven(d8, hn::BitCast(d8, high), hn::BitCast(d8, low));
  const auto pairs = hn::BitCast(du16, bytes);  // The even code in the low byte.
  const auto packed = hn::Or(hn::ShiftLeft<4>(pairs), hn::ShiftRight<8>(pairs));
  hn::StoreU(hn::TruncateTo(half, packed), half, target);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // NIBBLE_KERNELS_NIBBLE_PACK_INL_H_
