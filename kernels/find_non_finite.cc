// Finding NaN and Inf: a chunk's largest magnitude, as an integer, tells whether one is there; only
// then is the chunk searched.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/find_non_finite.cc"

#include <algorithm>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_quantize.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/ops.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // The portable fallback is the reference.

uint64_t FindFirstNonFinite(FloatType type, const std::byte* source, int64_t element_count) {
  return FindNonFiniteRef(type, source, element_count);
}

#else

namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kChunkBytes = 1024;  // A guess: long enough to pay for the sum of the lanes.

template <typename Lane>
HWY_INLINE Lane LargestMagnitude(const std::byte* source, int64_t bytes, Lane magnitude_bits) {
  const hn::CappedTag<Lane, 64 / sizeof(Lane)> d;
  const hn::Repartition<uint8_t, decltype(d)> d8;
  const int64_t step = static_cast<int64_t>(hn::Lanes(d8));
  auto largest = hn::Zero(d);
  for (int64_t i = 0; i < bytes; i += step) {
    const auto bits = hn::BitCast(d, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(source + i)));
    largest = hn::Max(largest, hn::And(bits, hn::Set(d, magnitude_bits)));
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

template <typename Lane>
uint64_t FindIn(FloatType type, const std::byte* source, int64_t element_count, Lane magnitude_bits,
                Lane infinity) {
  constexpr int64_t kChunkElements = kChunkBytes / static_cast<int64_t>(sizeof(Lane));
  for (int64_t begin = 0; begin < element_count; begin += kChunkElements) {
    const int64_t count = std::min(kChunkElements, element_count - begin);
    const std::byte* const chunk = source + begin * static_cast<int64_t>(sizeof(Lane));
    if (count == kChunkElements &&
        LargestMagnitude<Lane>(chunk, kChunkBytes, magnitude_bits) < infinity) {
      continue;
    }
    const uint64_t first = FindNonFiniteRef(type, chunk, count);
    if (first != kAllFinite) {
      return first + static_cast<uint64_t>(begin);
    }
  }
  return kAllFinite;
}

uint64_t FindFirstNonFinite(FloatType type, const std::byte* source, int64_t element_count) {
  switch (type) {
    case FloatType::kF32:
      return FindIn<int32_t>(type, source, element_count, 0x7fffffff, 0x7f800000);
    case FloatType::kF16:
      return FindIn<int16_t>(type, source, element_count, 0x7fff, 0x7c00);
    case FloatType::kBf16:
      return FindIn<int16_t>(type, source, element_count, 0x7fff, 0x7f80);
  }
  return kAllFinite;
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(FindFirstNonFinite);

uint64_t FindFirstNonFinite(FloatType type, const std::byte* source, int64_t element_count) {
  return HWY_DYNAMIC_DISPATCH(FindFirstNonFinite)(type, source, element_count);
}

}  // namespace nibble
#endif  // HWY_ONCE
