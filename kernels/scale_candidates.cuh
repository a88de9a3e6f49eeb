// Step 2 of the scale search on a GPU, and the sums over the threads that share a block.

#pragma once

#include <cstdint>

#include "kernels/elements.cuh"
#include "kernels/scale_search_table.h"

namespace nibble {

inline constexpr int kWarpThreads = 32;
inline constexpr int kCtaWarps = kCtaThreads / kWarpThreads;
inline constexpr unsigned kAllThreads = 0xffffffffu;

// What a CTA shares.
struct ScaleSearchShared {
  ScaleSearchTable table;
  uint32_t costs[kCtaWarps][2 * kSearchFactors];
  unsigned long long sums[kCtaWarps][3];
};

// Sums `values` over the threads that share a block; all of a CTA take part.
template <int kCount>
__device__ __forceinline__ void GroupSum(unsigned long long (&values)[kCount], int group_threads,
                                         ScaleSearchShared& shared) {
  for (int offset = min(group_threads, kWarpThreads) / 2; offset > 0; offset /= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] += __shfl_xor_sync(kAllThreads, values[i], offset);
    }
  }
  if (group_threads <= kWarpThreads) {
    return;
  }
  const int warp = threadIdx.x / kWarpThreads;
  if (threadIdx.x % kWarpThreads == 0) {
    for (int i = 0; i < kCount; ++i) {
      shared.sums[warp][i] = values[i];
    }
  }
  __syncthreads();
  const int group_warps = group_threads / kWarpThreads;
  const int first_warp = warp / group_warps * group_warps;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = 0;
    for (int j = 0; j < group_warps; ++j) {
      values[i] += shared.sums[first_warp + j][i];
    }
  }
  __syncthreads();  // The next sum writes there.
}

// The rows of costs of a thread's elements, two 16-bit candidates a register: a block's first 64
// elements are the most that they hold.
template <int kSigns>
__device__ __forceinline__ void SumCosts(const ScaleSearchTable& table,
                                         const int (&x)[kVectorElements],
                                         uint32_t (&sums)[kSigns][kSearchFactors / 2]) {
#pragma unroll
  for (int sign = 0; sign < kSigns; ++sign) {
#pragma unroll
    for (int i = 0; i < kSearchFactors / 2; ++i) {
      sums[sign][i] = 0;
    }
#pragma unroll
    for (int element = 0; element < kVectorElements; ++element) {
      const int rounded = (x[element] + (1 << (kSearchRowShift - 1))) >> kSearchRowShift;
      const int row = sign == 0 ? rounded : -rounded;
      const auto* const costs = reinterpret_cast<const uint4*>(table.costs[kSearchRowMax + row]);
      const uint4 low = costs[0];
      const uint4 high = costs[1];
      sums[sign][0] += low.x;
      sums[sign][1] += low.y;
      sums[sign][2] += low.z;
      sums[sign][3] += low.w;
      sums[sign][4] += high.x;
      sums[sign][5] += high.y;
      sums[sign][6] += high.z;
      sums[sign][7] += high.w;
    }
  }
}

// Four neighbours share the candidates among them: thread q has those of registers q and q + 4.
// This is the index of its i-th one, of a sign.
__device__ __forceinline__ int CandidateIndex(int sign, int i) {
  const int quarter = threadIdx.x % 4;
  return sign * kSearchFactors + 2 * (quarter + i / 2 * 4) + i % 2;
}

// Totals over the warp, or the threads of it that share a block.
template <int kSigns>
__device__ __forceinline__ void SumWithinWarp(uint32_t (&sums)[kSigns][kSearchFactors / 2],
                                              int group_threads, uint32_t (&totals)[kSigns][4]) {
#pragma unroll
  for (int sign = 0; sign < kSigns; ++sign) {
#pragma unroll
    for (int i = 0; i < kSearchFactors / 2; ++i) {
      for (int offset = min(group_threads, kSearchCostElements / kVectorElements) / 2; offset > 0;
           offset /= 2) {
        sums[sign][i] += __shfl_xor_sync(kAllThreads, sums[sign][i], offset);
      }
      if (i % 4 == threadIdx.x % 4) {
        totals[sign][i / 4 * 2] = sums[sign][i] & 0xffff;
        totals[sign][i / 4 * 2 + 1] = sums[sign][i] >> 16;
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      for (int offset = kSearchCostElements / kVectorElements;
           offset < min(group_threads, kWarpThreads); offset *= 2) {
        totals[sign][i] += __shfl_xor_sync(kAllThreads, totals[sign][i], offset);
      }
    }
  }
}

// Totals over the warps that share a block.
template <int kSigns>
__device__ __forceinline__ void SumOverWarps(int group_threads, uint32_t (&totals)[kSigns][4],
                                             ScaleSearchShared& shared) {
  const int warp = threadIdx.x / kWarpThreads;
  const int group_warps = group_threads / kWarpThreads;
  const int first_warp = warp / group_warps * group_warps;
  if (threadIdx.x % kWarpThreads < 4) {
#pragma unroll
    for (int i = 0; i < 4 * kSigns; ++i) {
      shared.costs[warp][CandidateIndex(i / 4, i % 4)] = totals[i / 4][i % 4];
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4 * kSigns; ++i) {
    totals[i / 4][i % 4] = 0;
    for (int j = 0; j < group_warps; ++j) {
      totals[i / 4][i % 4] += shared.costs[first_warp + j][CandidateIndex(i / 4, i % 4)];
    }
  }
  __syncthreads();  // The next block writes there.
}

// The candidate of least cost, the first of equal ones: the index of its factor, plus
// kSearchFactors if the block is turned.
template <int kSigns>
__device__ __forceinline__ int CheapestCandidate(const int (&x)[kVectorElements], int group_threads,
                                                 ScaleSearchShared& shared) {
  uint32_t sums[kSigns][kSearchFactors / 2];
  uint32_t totals[kSigns][4] = {};
  SumCosts<kSigns>(shared.table, x, sums);
  SumWithinWarp<kSigns>(sums, group_threads, totals);
  if (group_threads > kWarpThreads) {
    SumOverWarps<kSigns>(group_threads, totals, shared);
  }
  uint32_t least = 0xffffffffu;
#pragma unroll
  for (int i = 0; i < 4 * kSigns; ++i) {
    const uint32_t candidate = static_cast<uint32_t>(CandidateIndex(i / 4, i % 4));
    least = min(least, totals[i / 4][i % 4] << 5 | candidate);
  }
  least = min(least, __shfl_xor_sync(kAllThreads, least, 1));
  least = min(least, __shfl_xor_sync(kAllThreads, least, 2));
  return static_cast<int>(least & 31);
}

}  // namespace nibble
