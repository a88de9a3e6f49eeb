// What the SIMD quantizers share, once per target: 16-bit lanes of codes to packed bytes.

#if defined(NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_
#undef NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_
#else
#define NIBBLE_KERNELS_SIMD_BLOCKS_INL_H_
#endif

#include "hwy/highway.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Highway's emulation of F16 conversions on processors before AVX2 does not round as they do.
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4
constexpr bool kRoundsToF16 = false;
#else
constexpr bool kRoundsToF16 = true;
#endif

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
