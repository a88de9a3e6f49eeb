// The key and value cache of a layer as kernels take it.

#pragma once

#include <cstdint>

#include "kernels/elements.cuh"
#include "kernels/step_ops.h"
#include "kernels/step_rows.cuh"

namespace nibble {

template <KvType kType>
struct KvElement;
template <>
struct KvElement<KvType::kF32> : Element<FloatType::kF32> {};
template <>
struct KvElement<KvType::kBf16> : Element<FloatType::kBf16> {};
template <>
struct KvElement<KvType::kF16> : Element<FloatType::kF16> {
  // Saturates; comparisons, because fminf() would make a number of NaN.
  __device__ static __half Narrow(float value) {
    constexpr float kMax = 65504;  // The largest finite one.
    value = value > kMax ? kMax : value;
    return __float2half_rn(value < -kMax ? -kMax : value);
  }
};

// A layer's cache, [slots, heads, size] each.
template <KvType kType>
struct CacheView {
  typename KvElement<kType>::Storage* keys;
  typename KvElement<kType>::Storage* values;
  int64_t slot_count;
  int heads;
  int size;
};

template <KvType kType>
CacheView<kType> CacheViewOf(const KvCache& cache) {
  using Storage = typename KvElement<kType>::Storage;
  return {PointerTo<Storage>(cache.keys), PointerTo<Storage>(cache.values), cache.slot_count,
          static_cast<int>(cache.heads), static_cast<int>(cache.head_size)};
}

}  // namespace nibble
