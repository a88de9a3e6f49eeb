#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/page_attention.cc"

#include "kernels/page_attention.h"

#include <cstring>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/bytes.h"
#include "kernels/linear.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using PageFloat = hn::ScalableTag<float>;

void WidenBf16(const uint16_t* source, int64_t count, float* target) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const PageFloat d;
  const hn::Rebind<uint16_t, PageFloat> d16;
  const hn::RebindToUnsigned<PageFloat> d32;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= count; i += lanes) {
    const auto bits = hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, source + i)));
    hn::StoreU(hn::BitCast(d, bits), d, target + i);
  }
#endif
  for (; i < count; ++i) {
    const uint32_t bits = uint32_t{source[i]} << 16;
    std::memcpy(target + i, &bits, sizeof(bits));
  }
}

// kVectors vectors of the totals stay in registers while all tokens are added.
template <int64_t kVectors>
HWY_INLINE void AddColumns(const float* weights, const float* values, int64_t count, int64_t size,
                           float* totals) {
  const PageFloat d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<PageFloat> sums[kVectors];
  for (int64_t v = 0; v < kVectors; ++v) {
    sums[v] = hn::LoadU(d, totals + v * lanes);
  }
  for (int64_t t = 0; t < count; ++t) {
    const auto weight = hn::Set(d, weights[t]);
    for (int64_t v = 0; v < kVectors; ++v) {
      sums[v] = hn::MulAdd(weight, hn::LoadU(d, values + t * size + v * lanes), sums[v]);
    }
  }
  for (int64_t v = 0; v < kVectors; ++v) {
    hn::StoreU(sums[v], d, totals + v * lanes);
  }
}

void AddAllValues(const float* weights, const float* values, int64_t count, int64_t size,
                  float* totals) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(PageFloat()));
  int64_t i = 0;
  for (; i + 4 * lanes <= size; i += 4 * lanes) {
    AddColumns<4>(weights, values + i, count, size, totals + i);
  }
  for (; i + lanes <= size; i += lanes) {
    AddColumns<1>(weights, values + i, count, size, totals + i);
  }
  for (; i < size; ++i) {
    for (int64_t t = 0; t < count; ++t) {
      totals[i] += weights[t] * values[t * size + i];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(WidenBf16);
HWY_EXPORT(AddAllValues);

void ReadHeads(KvType type, const std::byte* source, int64_t stride_bytes, int64_t count,
               int64_t size, float* target) {
  for (int64_t t = 0; t < count; ++t) {
    const std::byte* const head = source + t * stride_bytes;
    switch (type) {
      case KvType::kF16:
        ExpandF16(reinterpret_cast<const uint16_t*>(head), size, target);
        break;
      case KvType::kBf16:
        HWY_DYNAMIC_DISPATCH(WidenBf16)(reinterpret_cast<const uint16_t*>(head), size, target);
        break;
      case KvType::kF32:
        std::memcpy(target, head, static_cast<size_t>(size) * sizeof(float));
        break;
    }
    target += size;
  }
}

void ScoreKeys(const float* query, const float* keys, int64_t count, int64_t size, float* scores) {
  for (int64_t t = 0; t < count; ++t) {
    scores[t] = DotProduct(query, keys + t * size, size);
  }
}

void AddValues(const float* weights, const float* values, int64_t count, int64_t size,
               float* totals) {
  HWY_DYNAMIC_DISPATCH(AddAllValues)(weights, values, count, size, totals);
}

}  // namespace nibble
#endif  // HWY_ONCE
