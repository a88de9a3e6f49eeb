// Steps 1 and 2 of the scale search, once per target: x, and the candidate of the least cost.

#if defined(NIBBLE_KERNELS_SIMD_SCALE_CANDIDATES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_SIMD_SCALE_CANDIDATES_INL_H_
#undef NIBBLE_KERNELS_SIMD_SCALE_CANDIDATES_INL_H_
#else
#define NIBBLE_KERNELS_SIMD_SCALE_CANDIDATES_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "kernels/scale_search_table.h"
#include "kernels/simd_scale_search-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Rows of costs, as 16-bit sums and as the 32-bit ones that those become.
using Costs = hn::CappedTag<uint16_t, kSearchFactors>;
constexpr size_t kCostVectors = kSearchFactors / hn::MaxLanes(Costs());

template <FloatType kType>
HWY_INLINE void StoreX(const std::byte* source, int64_t block_size, float unit,
                       int16_t* HWY_RESTRICT x) {
  constexpr int64_t kElementBytes = BytesPerElement(kType);
  const VFloat vunit = hn::Set(Float(), unit);
  for (int64_t i = 0; i < block_size; i += kLanes) {
    const std::byte* const at = source + i * kElementBytes;
    const VFloat low = LoadElements<kType>(at);
    const VFloat high = LoadElements<kType>(at + kLanes / 2 * kElementBytes);
    hn::StoreU(Demote(Rounded(hn::Mul(low, vunit)), Rounded(hn::Mul(high, vunit))), Short(), x + i);
  }
}

// Adds 16-bit sums to `totals` [kSearchFactors].
HWY_INLINE void AddTo(uint32_t* HWY_RESTRICT totals, const hn::Vec<Costs>* sums) {
  const hn::Half<Costs> half;
  const hn::Rebind<uint32_t, decltype(half)> d32;
  for (size_t v = 0; v < kCostVectors; ++v) {
    uint32_t* const at = totals + v * hn::Lanes(Costs());
    const auto low = hn::PromoteTo(d32, hn::LowerHalf(half, sums[v]));
    const auto high = hn::PromoteTo(d32, hn::UpperHalf(half, sums[v]));
    hn::StoreU(hn::Add(hn::LoadU(d32, at), low), d32, at);
    hn::StoreU(hn::Add(hn::LoadU(d32, at + hn::Lanes(d32)), high), d32, at + hn::Lanes(d32));
  }
}

// Sums the rows of up to kSearchCostElements elements.
template <bool kSigned>
HWY_INLINE void SumCosts(const ScaleSearchTable& table, const int16_t* HWY_RESTRICT x,
                         int64_t count, uint32_t* HWY_RESTRICT totals) {
  const Costs d;
  // Byte offsets of rows: 32 * round(x / 2^6).
  alignas(64) int16_t offsets[kSearchCostElements];
  static_assert(sizeof(table.costs[0]) == 32 && kSearchRowShift == 6);
  for (int64_t i = 0; i < count; i += kLanes) {
    const VShort rounded = hn::Add(hn::LoadU(Short(), x + i), hn::Set(Short(), 32));
    hn::Store(hn::And(hn::ShiftRight<1>(rounded), hn::Set(Short(), -32)), Short(), offsets + i);
  }
  hn::Vec<Costs> sums[2][kCostVectors];
  for (size_t v = 0; v < kCostVectors; ++v) {
    sums[0][v] = hn::Zero(d);
    sums[1][v] = hn::Zero(d);
  }
  const auto* const middle = reinterpret_cast<const char*>(table.costs[kSearchRowMax]);
  const auto add_row = [&](int64_t offset, hn::Vec<Costs>* sum) HWY_ATTR {
    const auto* const row = reinterpret_cast<const uint16_t*>(middle + offset);
    for (size_t v = 0; v < kCostVectors; ++v) {
      sum[v] = hn::Add(sum[v], hn::Load(d, row + v * hn::Lanes(d)));
    }
  };
  const auto add_element = [&](int64_t offset) HWY_ATTR {
    add_row(offset, sums[0]);
    if (kSigned) {
      add_row(-offset, sums[1]);
    }
  };
  for (int64_t i = 0; i < count; i += 4) {  // The loop itself costs as much as a row.
    add_element(offsets[i]);
    add_element(offsets[i + 1]);
    add_element(offsets[i + 2]);
    add_element(offsets[i + 3]);
  }
  AddTo(totals, sums[0]);
  if (kSigned) {
    AddTo(totals + kSearchFactors, sums[1]);
  }
}

// Returns: the index of the factor, plus kSearchFactors if the block is turned.
template <bool kSigned>
HWY_INLINE uint32_t CheapestCandidate(const ScaleSearchTable& table, const int16_t* x,
                                      int64_t block_size) {
  constexpr size_t kCandidates = (kSigned ? 2 : 1) * kSearchFactors;
  alignas(64) uint32_t totals[kCandidates] = {};
  for (int64_t i = 0; i < block_size; i += kSearchCostElements) {
    SumCosts<kSigned>(table, x + i, std::min<int64_t>(kSearchCostElements, block_size - i), totals);
  }
  // The cost in the high bits, the index in the low ones: the least has the least index too.
  static_assert(int64_t{kBlockSizeMax} * kSearchCostMax * 32 < (int64_t{1} << 31));
  const hn::RebindToUnsigned<Int32> d;
  auto least = hn::Set(d, UINT32_MAX);
  for (size_t i = 0; i < kCandidates; i += hn::Lanes(d)) {
    const auto key =
        hn::Add(hn::ShiftLeft<5>(hn::LoadU(d, totals + i)), hn::Iota(d, static_cast<uint32_t>(i)));
    least = hn::Min(least, key);
  }
  return hn::GetLane(hn::MinOfLanes(d, least)) & 31;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // NIBBLE_KERNELS_SIMD_SCALE_CANDIDATES_INL_H_
