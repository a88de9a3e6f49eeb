// What the SIMD quantizers share, once per target: the largest magnitude of 16-bit numbers, and
// 16-bit lanes of codes to packed bytes.

#if defined(NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_
#undef NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_
#else
#define NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Highway's emulation of F16 conversions, for processors before AVX2, does not round as they do.
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_EMU128
constexpr bool kRoundsToF16 = false;
#else
constexpr bool kRoundsToF16 = true;
#endif

using Int16 = hn::CappedTag<int16_t, 32>;  // The smallest block, or half of it, or a quarter.
using VInt16 = hn::Vec<Int16>;

HWY_INLINE VInt16 LoadBits(const std::byte* source) {
  const hn::Repartition<uint8_t, Int16> d8;
  return hn::BitCast(Int16(), hn::LoadU(d8, reinterpret_cast<const uint8_t*>(source)));
}

// The largest lane. Requires: no lane is negative.
template <class V>
HWY_INLINE int16_t LargestLane(V v) {
  const hn::DFromV<V> d;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSE4
  if constexpr (hn::MaxLanes(d) > 8) {
    const hn::Half<hn::DFromV<V>> half;
    return LargestLane(hn::Max(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    // One instruction finds the smallest of eight; the largest has the smallest complement.
    const __m128i smallest = _mm_minpos_epu16(_mm_xor_si128(v.raw, _mm_set1_epi16(-1)));
    return static_cast<int16_t>(~_mm_cvtsi128_si32(smallest));
  }
#else
  return hn::GetLane(hn::MaxOfLanes(d, v));
#endif
}

// The bits of the largest magnitude of a block of BF16 or F16, NaN being larger than all.
HWY_INLINE int16_t LargestMagnitude16Bit(const std::byte* source, int64_t block_size) {
  const Int16 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VInt16 largest = hn::Zero(d);
  for (int64_t i = 0; i < block_size; i += lanes) {
    largest = hn::Max(largest, hn::And(LoadBits(source + 2 * i), hn::Set(d, 0x7fff)));
  }
  return LargestLane(largest);
}

#if HWY_TARGET == HWY_AVX2

// Packs the low bytes of 64 16-bit lanes; high bytes are ignored. AVX2 packs within halves of a
// vector, so the order is put right once at the end.
HWY_INLINE void StoreNibbles(hn::Vec256<int16_t> v0, hn::Vec256<int16_t> v1, hn::Vec256<int16_t> v2,
                             hn::Vec256<int16_t> v3, uint8_t* HWY_RESTRICT target) {
  const __m256i low_bytes = _mm256_set1_epi16(0x00ff);
  const __m256i weights = _mm256_set1_epi16(0x0110);  // 16 for the even code, 1 for the odd.
  const __m256i codes01 =
      _mm256_packus_epi16(_mm256_and_si256(v0.raw, low_bytes), _mm256_and_si256(v1.raw, low_bytes));
  const __m256i codes23 =
      _mm256_packus_epi16(_mm256_and_si256(v2.raw, low_bytes), _mm256_and_si256(v3.raw, low_bytes));
  const __m256i bytes = _mm256_packus_epi16(_mm256_maddubs_epi16(codes01, weights),
                                            _mm256_maddubs_epi16(codes23, weights));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      _mm256_permutevar8x32_epi32(bytes, order));
}

#endif  // HWY_TARGET == HWY_AVX2

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

#endif  // NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_
