// Attention over pages in 16 bits by teams of lanes: heads of 64, 128 and 256 numbers.

#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/attention_sums.cuh"
#include "kernels/early_launch.cuh"
#include "kernels/kv_cache.cuh"
#include "kernels/step_ops.h"
#include "kernels/step_rows.cuh"
#include "kernels/token_ring.cuh"

namespace nibble {

inline constexpr int kTeamHeadsMax = 4;  // Query heads of a CTA.

// A lane's part of a query.
template <int kLanes>
__device__ __forceinline__ void LoadQuery(const float* head, int lane,
                                          float (&query)[kLaneNumbers]) {
  const bool wide = reinterpret_cast<uintptr_t>(head) % sizeof(float4) == 0;
#pragma unroll
  for (int v = 0; v < kLaneVectors; ++v) {
    const float* const source = head + VectorBegin<kLanes>(lane, v);
#pragma unroll
    for (int i = 0; i < kVector; i += 4) {
      float4 four;
      if (wide) {
        four = *reinterpret_cast<const float4*>(source + i);
      } else {
        four = {source[i], source[i + 1], source[i + 2], source[i + 3]};
      }
      query[v * kVector + i] = four.x;
      query[v * kVector + i + 1] = four.y;
      query[v * kVector + i + 2] = four.z;
      query[v * kVector + i + 3] = four.w;
    }
  }
}

// Adds a token to the softmax of each head; the same score and weight in all lanes of a team.
template <KvType kType, int kLanes, int kHeads>
__device__ __forceinline__ void AddToken(const ScoreForm& form, bool is_token,
                                         const float (&query)[kHeads][kLaneNumbers],
                                         const uint4 (&key)[kLaneVectors],
                                         const uint4 (&value)[kLaneVectors],
                                         Softmax<kLaneNumbers> (&softmax)[kHeads]) {
  float numbers[kLaneNumbers];
  Unpack<kType>(key, numbers);
  float scores[kHeads] = {};
#pragma unroll
  for (int i = 0; i < kLaneNumbers; ++i) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      scores[h] = __fmaf_rn(query[h][i], numbers[i], scores[h]);
    }
  }
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      scores[h] += __shfl_xor_sync(kAllLanes, scores[h], distance);
    }
  }
  bool raises = false;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    scores[h] = is_token ? form.Of(scores[h]) : -INFINITY;
    raises = raises || scores[h] > softmax[h].largest;
  }
  if (raises) {  // Seldom, once a few tokens are added: one branch for all heads.
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      softmax[h].RaiseTo(scores[h]);
    }
  }
  float weights[kHeads];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    weights[h] = is_token ? expf(scores[h] - softmax[h].largest) : 0.0f;
    softmax[h].sum += weights[h];
  }
  Unpack<kType>(value, numbers);
#pragma unroll
  for (int i = 0; i < kLaneNumbers; ++i) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      softmax[h].totals[i] = __fmaf_rn(weights[h], numbers[i], softmax[h].totals[i]);
    }
  }
}

// Adds the sums of a warp's teams in a tree; all teams get them.
template <int kLanes>
__device__ __forceinline__ void MergeTeams(Softmax<kLaneNumbers>& softmax) {
#pragma unroll
  for (int distance = kLanes; distance < kWarpThreads; distance *= 2) {
    const float other = __shfl_xor_sync(kAllLanes, softmax.largest, distance);
    const float all = fmaxf(softmax.largest, other);
    const float factor = FactorOf(softmax.largest, all);
    softmax.largest = all;
    softmax.sum *= factor;
    softmax.sum += __shfl_xor_sync(kAllLanes, softmax.sum, distance);
#pragma unroll
    for (int i = 0; i < kLaneNumbers; ++i) {
      softmax.totals[i] *= factor;
      softmax.totals[i] += __shfl_xor_sync(kAllLanes, softmax.totals[i], distance);
    }
  }
}

// Merges the teams of each warp, and has each team store a head in turn.
template <int kLanes, int kHeads>
__device__ __forceinline__ void StoreParts(Softmax<kLaneNumbers> (&softmax)[kHeads],
                                           PartSums<kLanes * kLaneNumbers>* parts) {
  constexpr int kWarpTeams = kWarpThreads / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int team = static_cast<int>(threadIdx.x) % kWarpThreads / kLanes;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    MergeTeams<kLanes>(softmax[h]);
    if (team == h % kWarpTeams) {
      PartSums<kLanes* kLaneNumbers>& part = parts[h];
      if (lane == 0) {
        part.largest = softmax[h].largest;
        part.sum = softmax[h].sum;
      }
#pragma unroll
      for (int i = 0; i < kLaneNumbers; ++i) {
        part.totals[VectorBegin<kLanes>(lane, i / kVector) + i % kVector] = softmax[h].totals[i];
      }
    }
  }
}

// A CTA, or a cluster of them, is up to kHeads query heads of one row, which share a key head. A
// team of D / 16 lanes takes each stride-th token, reads and unpacks its key and value once for
// all the heads, and keeps a softmax of its own for each. Teams of a warp are merged in a tree,
// then warps and CTAs in order: the order depends on the positions and the size of the cluster
// alone.
//
//   grid   bound x key heads * ceil(H / key heads / kHeads) x CTAs of a cluster
//   block  256 threads
//   bytes  4 D a token and kHeads query heads; bound by memory latency while a step has few rows
template <KvType kType, int kLanes, int kHeads>
__global__ void __launch_bounds__(kAttentionThreads, kHeads > 2 ? 1 : 2)
    TeamAttentionKernel(LiveCount rows, Pages pages, ScoreForm form, CacheView<kType> cache,
                        Rows queries,   // [M, H, D]
                        Rows target) {  // [M, H, D]
  constexpr int kSize = kLanes * kLaneNumbers;
  extern __shared__ uint4 team_shared[];
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  if (row >= rows.Read()) {
    return;
  }
  const int group = queries.groups / cache.heads;
  const int group_ctas = (group + kHeads - 1) / kHeads;
  const int key_head = static_cast<int>(blockIdx.y) / group_ctas;
  const int first_head = static_cast<int>(blockIdx.y) % group_ctas * kHeads;
  const CtaHeads heads = {key_head * group + first_head, min(kHeads, group - first_head)};
  const RowTokens tokens = TokensOf(pages, row);
  const int thread = static_cast<int>(blockIdx.z) * kAttentionThreads +
                     static_cast<int>(threadIdx.x);  // Of the cluster.
  const int64_t stride = static_cast<int64_t>(gridDim.z) * kAttentionThreads / kLanes;
  const int64_t warp_first = tokens.begin + thread / kWarpThreads * (kWarpThreads / kLanes);
  int64_t t = tokens.begin + thread / kLanes;

  TokenRing<kType, kLanes> ring(pages, tokens, cache, key_head, t, stride, team_shared);
  float query[kHeads][kLaneNumbers];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    // Beyond the last head it is computed again, and not stored.
    LoadQuery<kLanes>(queries.At(row, heads.begin + min(h, heads.count - 1)), thread % kLanes,
                      query[h]);
  }
  Softmax<kLaneNumbers> softmax[kHeads];
  // The same number of turns for all lanes of a warp.
  for (int64_t turn = warp_first; turn < tokens.end; turn += stride, t += stride) {
    uint4 key[kLaneVectors];
    uint4 value[kLaneVectors];
    ring.Take(key, value);
    AddToken<kType, kLanes, kHeads>(form, t < tokens.end, query, key, value, softmax);
  }
  if (ring.missing()) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      softmax[h].sum = NAN;
    }
  }
  WaitForCopies<0>();
  __syncthreads();  // The parts take the place of the tokens.
  auto* const parts = reinterpret_cast<PartSums<kSize>*>(team_shared);
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  StoreParts<kLanes, kHeads>(softmax, parts + warp * kHeads);
  MergeParts<kSize, kHeads>(parts, kHeads, kAttentionWarps, heads, row, target);
}

// Query heads of a CTA and CTAs of a cluster.
struct TeamGrid {
  int cta_heads = 1;
  unsigned int splits = 1;
};

// By shapes and the bound alone: a CTA for three of four multiprocessors, at least, if a cluster or
// fewer heads in a CTA give so many.
inline TeamGrid TeamGridFor(const AttentionArgs& args, const DeviceShape& device) {
  const int64_t group = args.queries.groups / args.cache.heads;
  TeamGrid grid;
  grid.cta_heads = group > 2 ? kTeamHeadsMax : static_cast<int>(group);
  const auto is_small = [&] {
    const int64_t ctas = args.rows.bound * args.cache.heads * CeilDivide(group, grid.cta_heads) *
                         static_cast<int64_t>(grid.splits);
    return 4 * ctas < 3 * int64_t{device.processors};
  };
  if (args.batch_invariant) {
    return grid;
  }
  while (device.capability >= 9 && grid.splits < kAttentionSplitsMax && is_small()) {
    grid.splits *= 2;
  }
  while (grid.cta_heads > 1 && is_small()) {
    grid.cta_heads /= 2;
  }
  return grid;
}

template <KvType kType, int kLanes, int kHeads>
void AttendInTeams(const AttentionArgs& args, unsigned int splits, const DeviceShape& device,
                   cudaStream_t stream) {
  const int64_t group = args.queries.groups / args.cache.heads;
  const dim3 grid(static_cast<unsigned int>(args.rows.bound),
                  static_cast<unsigned int>(args.cache.heads * CeilDivide(group, int64_t{kHeads})),
                  splits);
  (void)LaunchEarly(device, TeamAttentionKernel<kType, kLanes, kHeads>, grid, kAttentionThreads,
                    kRingBytes, stream, LiveCountOf(args.rows), PagesOf(args),
                    ScoreForm{args.scale, args.softcap}, CacheViewOf<kType>(args.cache),
                    RowsOf(args.queries), RowsOf(args.target));
}

template <KvType kType, int kLanes>
void AttendByLanes(const AttentionArgs& args, cudaStream_t stream) {
  const DeviceShape device = CurrentDeviceShape();
  const TeamGrid grid = TeamGridFor(args, device);
  if (grid.cta_heads == 1) {
    AttendInTeams<kType, kLanes, 1>(args, grid.splits, device, stream);
  } else if (grid.cta_heads == 2) {
    AttendInTeams<kType, kLanes, 2>(args, grid.splits, device, stream);
  } else {
    AttendInTeams<kType, kLanes, kTeamHeadsMax>(args, grid.splits, device, stream);
  }
}

// False, and nothing is launched, if heads are of another size or places are not aligned.
template <KvType kType>
bool LaunchTeamAttention(const AttentionArgs& args, cudaStream_t stream) {
  if (!IsAligned(args.cache.keys.address(), sizeof(uint4)) ||
      !IsAligned(args.cache.values.address(), sizeof(uint4))) {
    return false;
  }
  switch (args.cache.head_size) {
    case 4 * kLaneNumbers:
      AttendByLanes<kType, 4>(args, stream);
      return true;
    case 8 * kLaneNumbers:
      AttendByLanes<kType, 8>(args, stream);
      return true;
    case 16 * kLaneNumbers:
      AttendByLanes<kType, 16>(args, stream);
      return true;
    default:
      return false;
  }
}

template <KvType kType, int kLanes>
cudaError_t LoadLanes() {
  for (const auto kernel :
       {TeamAttentionKernel<kType, kLanes, 1>, TeamAttentionKernel<kType, kLanes, 2>,
        TeamAttentionKernel<kType, kLanes, kTeamHeadsMax>}) {
    if (const cudaError_t error = TouchLarge(kernel); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

template <KvType kType>
cudaError_t LoadTeamAttention() {
  for (const auto load : {LoadLanes<kType, 4>, LoadLanes<kType, 8>, LoadLanes<kType, 16>}) {
    if (const cudaError_t error = load(); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
