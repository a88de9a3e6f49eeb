// The pairs of a row and one of its experts that a step multiplies.

#pragma once

#include <cstdint>

#include "kernels/matrix_elements.cuh"
#include "kernels/step_ops.h"
#include "kernels/step_rows.cuh"

namespace nibble {

// From this many rows an expert on, on average, its matrix is read once for all of them. A guess:
// below, most of a tile's rows would be empty.
inline constexpr int64_t kGroupedRowsMin = 4;

// A step's rows and the experts that each goes to. A pair is a row and one of its experts.
struct Pairs {
  LiveCount rows;
  int top_k;
  int expert_count;
  const int32_t* experts;  // [M, top_k]
  Rows source;             // [M, K] or [M, top_k, K]
  Rows target;             // [M, top_k, N]
  bool wide_rows;          // As far as shapes and the source tell.

  // The device alone knows where a matrix lies. One that is fused with others may lie anywhere.
  template <ElementKind kKind>
  __device__ __forceinline__ bool IsWide(const MatrixPlanes& planes) const {
    return wide_rows && planes.data % (kKind == ElementKind::kFourBit ? 4 : 16) == 0;
  }
  __device__ __forceinline__ const float* SourceOf(int64_t pair) const {
    return source.At(pair / top_k, source.groups == 1 ? 0 : pair % top_k);
  }
  __device__ __forceinline__ float* TargetOf(int64_t pair) const {
    return target.At(pair / top_k, pair % top_k);
  }
};

inline Pairs PairsOf(const ExpertLinearArgs& args) {
  Pairs pairs = {};
  pairs.rows = LiveCountOf(args.rows);
  pairs.top_k = static_cast<int>(args.top_k);
  pairs.expert_count = static_cast<int>(args.expert_count);
  pairs.experts = PointerTo<const int32_t>(args.experts);
  pairs.source = RowsOf(args.source);
  pairs.target = RowsOf(args.target);
  pairs.wide_rows = args.shape.columns % kVectorElements == 0 &&
                    IsAligned(args.source.span.address(), 16) && args.source.row_stride % 4 == 0 &&
                    args.source.group_stride % 4 == 0;
  return pairs;
}

// Writes the rows of pairs number `begin` to begin + kRows - 1 of an expert, in their order, by a
// whole CTA, and returns how many pairs the expert has in all. "Expert" E stands for those that
// there are not.
template <int kThreads, int kRows>
__device__ int CollectPairs(const Pairs& pairs, int64_t pair_count, int expert, int begin,
                            const float** sources, float** targets) {
  constexpr int kWarps = kThreads / kWarpThreads;
  __shared__ int warp_counts[kWarps];
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  int count = 0;
  for (int64_t base = 0; base < pair_count; base += kThreads) {
    const int64_t pair = base + threadIdx.x;
    int found = -1;
    if (pair < pair_count) {
      found = pairs.experts[pair];
      found = found < 0 || found >= pairs.expert_count ? pairs.expert_count : found;
    }
    const unsigned int matches = __ballot_sync(kAllLanes, found == expert);
    if (lane == 0) {
      warp_counts[warp] = __popc(matches);
    }
    __syncthreads();
    int place = count + __popc(matches & ((1u << lane) - 1)) - begin;
    for (int w = 0; w < kWarps; ++w) {
      place += w < warp ? warp_counts[w] : 0;
      count += warp_counts[w];
    }
    if (found == expert && place >= 0 && place < kRows) {
      sources[place] = pairs.SourceOf(pair);
      targets[place] = pairs.TargetOf(pair);
    }
    __syncthreads();
  }
  return count;
}

}  // namespace nibble
