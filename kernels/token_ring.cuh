// The tokens of a team of lanes, on their way from pages in 16 bits to shared memory and registers.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/attention_sums.cuh"
#include "kernels/kv_cache.cuh"
#include "kernels/mma_units.cuh"
#include "kernels/step_rows.cuh"

namespace nibble {

inline constexpr int kVector = 8;                            // 16-bit numbers of 16 bytes.
inline constexpr int kLaneVectors = 2;                       // Of a key, and of a value.
inline constexpr int kLaneNumbers = kLaneVectors * kVector;  // Of a head.
inline constexpr int kRingTokens = 4;                        // Of a team, on their way at once.
inline constexpr int kTokenVectors = 2 * kLaneVectors;       // Of a lane: keys, then values.
inline constexpr int kRingBytes =
    kRingTokens * kTokenVectors * kAttentionThreads * static_cast<int>(sizeof(uint4));

// Where a lane's numbers of vector v begin in a head: the lanes of a team read 16 bytes each side
// by side.
template <int kLanes>
__device__ __forceinline__ int VectorBegin(int lane, int v) {
  return (v * kLanes + lane) * kVector;
}

// A lane's part of a key or a value.
template <KvType kType>
__device__ __forceinline__ void Unpack(const uint4 (&vectors)[kLaneVectors],
                                       float (&numbers)[kLaneNumbers]) {
  union Vector {
    uint4 bits;
    typename KvElement<kType>::Storage elements[kVector];
    __device__ Vector() {}
  };
#pragma unroll
  for (int v = 0; v < kLaneVectors; ++v) {
    Vector vector;
    vector.bits = vectors[v];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      numbers[v * kVector + i] = KvElement<kType>::Widen(vector.elements[i]);
    }
  }
}

// The tokens of a team, every stride-th, on their way from pages to shared memory. A lane copies
// what it reads itself, so that nothing but its own copies is waited for.
template <KvType kType, int kLanes>
class TokenRing {
 public:
  // Begins with the tokens first, first + stride, ...
  __device__ __forceinline__ TokenRing(const Pages& pages, const RowTokens& tokens,
                                       const CacheView<kType>& cache, int key_head, int64_t first,
                                       int64_t stride, uint4* shared)
      : pages_(pages),
        tokens_(tokens),
        cache_(cache),
        head_offset_(key_head * cache.size +
                     VectorBegin<kLanes>(static_cast<int>(threadIdx.x) % kLanes, 0)),
        next_(first),
        stride_(stride),
        own_(shared + threadIdx.x) {
    int32_t page_of[kRingTokens];
#pragma unroll
    for (int i = 0; i < kRingTokens; ++i) {
      page_of[i] = PageOf(first + i * stride);
    }
    page_ = PageOf(first + kRingTokens * stride);
#pragma unroll
    for (int i = 0; i < kRingTokens; ++i) {
      Copy(i, page_of[i]);
    }
  }

  // Waits for the next token of the team, and sends for the one that takes its place. Zeros if
  // there is none.
  __device__ __forceinline__ void Take(uint4 (&key)[kLaneVectors], uint4 (&value)[kLaneVectors]) {
    WaitForCopies<kRingTokens - 1>();
#pragma unroll
    for (int v = 0; v < kLaneVectors; ++v) {
      key[v] = *Place(place_, v);
      value[v] = *Place(place_, kLaneVectors + v);
    }
    const int32_t page = page_;
    page_ = PageOf(next_ + stride_);
    Copy(place_, page);
    place_ = (place_ + 1) % kRingTokens;
  }

  // Whether a token was met that the cache has not.
  __device__ __forceinline__ bool missing() const { return missing_; }

 private:
  __device__ __forceinline__ uint4* Place(int place, int vector) const {
    return own_ + (place * kTokenVectors + vector) * kAttentionThreads;
  }

  __device__ __forceinline__ int32_t PageOf(int64_t t) const {
    return t < tokens_.end ? tokens_.table[t >> pages_.token_shift] : -1;
  }

  __device__ __forceinline__ void Copy(int place, int32_t page) {
    const int64_t slot = SlotIn(pages_, page, cache_.slot_count, next_);
    missing_ = missing_ || (next_ < tokens_.end && slot < 0);
    const bool is_there = next_ < tokens_.end && slot >= 0;
    const int64_t offset = (is_there ? slot : 0) * cache_.heads * cache_.size + head_offset_;
#pragma unroll
    for (int v = 0; v < kLaneVectors; ++v) {
      const int64_t from = offset + v * kLanes * kVector;
      CopyAsync16(Place(place, v), cache_.keys + from, is_there);
      CopyAsync16(Place(place, kLaneVectors + v), cache_.values + from, is_there);
    }
    CommitCopies();
    next_ += stride_;
  }

  const Pages& pages_;
  const RowTokens& tokens_;
  const CacheView<kType>& cache_;
  const int64_t head_offset_;  // Of the lane's numbers within a slot.
  int64_t next_;               // Token to be sent for.
  const int64_t stride_;
  uint4* const own_;   // [kRingTokens, kTokenVectors, kAttentionThreads], from this thread's on.
  int32_t page_ = -1;  // Of the token that is sent for next.
  int place_ = 0;
  bool missing_ = false;
};

}  // namespace nibble
