// Narrowing 16-bit lanes to bytes and codes to nibbles, once per target. x86 packs within groups of
// 128 bits, so on its wider vectors bytes stand in another order until StoreInOrder() mends it;
// what works lane by lane does not notice.

#if defined(NIBBLE_KERNELS_BYTE_PACKING_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_BYTE_PACKING_INL_H_
#undef NIBBLE_KERNELS_BYTE_PACKING_INL_H_
#else
#define NIBBLE_KERNELS_BYTE_PACKING_INL_H_
#endif

#include "hwy/highway.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// PackBytes:    the lanes of `low`, then of `high`, as bytes. Requires: lanes <= 255.
// PackSigns:    bytes whose top bits are those of the lanes; their other bits are anything.
// JoinNibbles:  16 * even byte + odd byte, in 16-bit lanes. Requires: bytes <= 15.
// StoreInOrder: joined nibbles of two vectors, as many bytes as one vector has.

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3

constexpr int16_t kNibbleWeights = 0x0110;  // 16 for the even code, 1 for the odd.

HWY_INLINE hn::Vec128<uint8_t> PackBytes(hn::Vec128<uint16_t> low, hn::Vec128<uint16_t> high) {
  return hn::Vec128<uint8_t>{_mm_packus_epi16(low.raw, high.raw)};
}
HWY_INLINE hn::Vec128<int8_t> PackSigns(hn::Vec128<uint16_t> low, hn::Vec128<uint16_t> high) {
  return hn::Vec128<int8_t>{_mm_packs_epi16(low.raw, high.raw)};
}
HWY_INLINE hn::Vec128<uint16_t> JoinNibbles(hn::Vec128<uint8_t> codes) {
  return hn::Vec128<uint16_t>{_mm_maddubs_epi16(codes.raw, _mm_set1_epi16(kNibbleWeights))};
}
HWY_INLINE void StoreInOrder(hn::Vec128<uint16_t> low, hn::Vec128<uint16_t> high,
                             uint8_t* HWY_RESTRICT target) {
  hn::StoreU(PackBytes(low, high), hn::DFromV<hn::Vec128<uint8_t>>(), target);
}

#if HWY_TARGET <= HWY_AVX2

HWY_INLINE hn::Vec256<uint8_t> PackBytes(hn::Vec256<uint16_t> low, hn::Vec256<uint16_t> high) {
  return hn::Vec256<uint8_t>{_mm256_packus_epi16(low.raw, high.raw)};
}
HWY_INLINE hn::Vec256<int8_t> PackSigns(hn::Vec256<uint16_t> low, hn::Vec256<uint16_t> high) {
  return hn::Vec256<int8_t>{_mm256_packs_epi16(low.raw, high.raw)};
}
HWY_INLINE hn::Vec256<uint16_t> JoinNibbles(hn::Vec256<uint8_t> codes) {
  return hn::Vec256<uint16_t>{_mm256_maddubs_epi16(codes.raw, _mm256_set1_epi16(kNibbleWeights))};
}
HWY_INLINE void StoreInOrder(hn::Vec256<uint16_t> low, hn::Vec256<uint16_t> high,
                             uint8_t* HWY_RESTRICT target) {
  // Packing twice within groups of 128 bits has left runs of four bytes, those of the four source
  // vectors in turn.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      _mm256_permutevar8x32_epi32(PackBytes(low, high).raw, order));
}

#endif  // HWY_TARGET <= HWY_AVX2
#if HWY_TARGET <= HWY_AVX3

HWY_INLINE hn::Vec512<uint8_t> PackBytes(hn::Vec512<uint16_t> low, hn::Vec512<uint16_t> high) {
  return hn::Vec512<uint8_t>{_mm512_packus_epi16(low.raw, high.raw)};
}
HWY_INLINE hn::Vec512<int8_t> PackSigns(hn::Vec512<uint16_t> low, hn::Vec512<uint16_t> high) {
  return hn::Vec512<int8_t>{_mm512_packs_epi16(low.raw, high.raw)};
}
HWY_INLINE hn::Vec512<uint16_t> JoinNibbles(hn::Vec512<uint8_t> codes) {
  return hn::Vec512<uint16_t>{_mm512_maddubs_epi16(codes.raw, _mm512_set1_epi16(kNibbleWeights))};
}
HWY_INLINE void StoreInOrder(hn::Vec512<uint16_t> low, hn::Vec512<uint16_t> high,
                             uint8_t* HWY_RESTRICT target) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(target, _mm512_permutexvar_epi32(order, PackBytes(low, high).raw));
}

#endif  // HWY_TARGET <= HWY_AVX3

#else

template <class V>
HWY_INLINE auto PackBytes(V low, V high) {
  const hn::Repartition<uint8_t, hn::DFromV<V>> d8;
  return hn::ConcatEven(d8, hn::BitCast(d8, high), hn::BitCast(d8, low));
}
template <class V>
HWY_INLINE auto PackSigns(V low, V high) {
  const hn::Repartition<int8_t, hn::DFromV<V>> d8;
  return hn::ConcatOdd(d8, hn::BitCast(d8, high), hn::BitCast(d8, low));
}
template <class V>
HWY_INLINE auto JoinNibbles(V codes) {
  const hn::Repartition<uint16_t, hn::DFromV<V>> d16;
  const auto pairs = hn::BitCast(d16, codes);  // The even code in the low byte.
  return hn::And(hn::Or(hn::ShiftLeft<4>(pairs), hn::ShiftRight<8>(pairs)), hn::Set(d16, 0x00ff));
}
template <class V>
HWY_INLINE void StoreInOrder(V low, V high, uint8_t* HWY_RESTRICT target) {
  hn::StoreU(PackBytes(low, high), hn::Repartition<uint8_t, hn::DFromV<V>>(), target);
}

#endif  // HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // NIBBLE_KERNELS_BYTE_PACKING_INL_H_
