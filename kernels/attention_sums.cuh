// What the kernels of attention share: where a row's tokens lie, what becomes of a score, and how
// the sums of parts of a head's tokens are added.

#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/step_ops.h"
#include "kernels/step_rows.cuh"

namespace nibble {

inline constexpr int kAttentionThreads = 256;
inline constexpr int kAttentionWarps = kAttentionThreads / kWarpThreads;
inline constexpr int kAttentionSplitsMax = 8;  // CTAs of a cluster.

// Where a row's tokens lie.
struct Pages {
  const int32_t* tables;         // [sequences, pages_max]
  const int32_t* row_sequences;  // [M]
  const int32_t* positions;      // [M]
  int64_t sequence_count;        // That `tables` has room for.
  int64_t pages_max;
  int token_shift;  // log2(page_tokens)
  int64_t window;   // 0: everything
};

inline Pages PagesOf(const AttentionArgs& args) {
  constexpr auto kIndexBytes = static_cast<int64_t>(sizeof(int32_t));
  Pages pages = {};
  pages.tables = PointerTo<const int32_t>(args.page_tables);
  pages.row_sequences = PointerTo<const int32_t>(args.row_sequences);
  pages.positions = PointerTo<const int32_t>(args.positions);
  pages.sequence_count = args.page_tables.bytes() / (args.pages_max * kIndexBytes);
  pages.pages_max = args.pages_max;
  pages.token_shift = std::countr_zero(static_cast<uint64_t>(args.page_tokens));
  pages.window = args.window;
  return pages;
}

// The tokens that a row attends to, [begin, end), and the pages of its sequence.
struct RowTokens {
  const int32_t* table;  // [pages_max]
  int64_t begin;
  int64_t end;
};

// A row of no sequence, or beyond its pages, has no tokens and becomes NaN.
__device__ __forceinline__ RowTokens TokensOf(const Pages& pages, int row) {
  const int64_t sequence = pages.row_sequences[row];
  const int64_t position = pages.positions[row];
  const bool holds = sequence >= 0 && sequence < pages.sequence_count &&
                     position >> pages.token_shift < pages.pages_max;
  RowTokens tokens;
  tokens.table = pages.tables + (holds ? sequence : 0) * pages.pages_max;
  tokens.end = holds ? position + 1 : 0;
  tokens.begin = pages.window == 0 || tokens.end < pages.window ? 0 : tokens.end - pages.window;
  return tokens;
}

// The slot of token t in page `page` of the cache; -1 if the cache has not that page.
__device__ __forceinline__ int64_t SlotIn(const Pages& pages, int64_t page, int64_t slot_count,
                                          int64_t t) {
  const int64_t offset = t & ((int64_t{1} << pages.token_shift) - 1);
  const int64_t slot = (page << pages.token_shift) + offset;
  return page >= 0 && slot < slot_count ? slot : -1;
}

struct ScoreForm {
  float scale;
  float softcap;  // 0: none

  __device__ __forceinline__ float Of(float product) const {
    const float score = product * scale;
    return softcap == 0 ? score : softcap * tanhf(score / softcap);
  }
};

// A softmax so far: the largest score, and the sums relative to it.
template <int kCount>
struct Softmax {
  float largest = -INFINITY;
  float sum = 0;
  float totals[kCount] = {};

  // Makes `score` the largest that the sums are relative to.
  __device__ __forceinline__ void RaiseTo(float score) {
    if (score > largest) {
      const float factor = expf(largest - score);  // 0 the first time.
      largest = score;
      sum *= factor;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        totals[i] *= factor;
      }
    }
  }
};

// The sums of a part of a head's tokens.
template <int kSize>
struct PartSums {
  float largest;
  float sum;
  float totals[kSize];
};

// What sums relative to `largest` are to be multiplied by when `all` is the largest. Without tokens
// it would be inf - inf.
__device__ __forceinline__ float FactorOf(float largest, float all) {
  return largest == -INFINITY ? 0.0f : expf(largest - all);
}

// The query heads of a CTA, `begin` on.
struct CtaHeads {
  int begin;
  int count;
};

// Adds the sums of a cluster's CTAs, in their order, and stores the heads. NaN without tokens.
template <int kSize>
__device__ __forceinline__ void MergeCtas(PartSums<kSize>* own,  // [heads.count]
                                          const CtaHeads& heads, int row,
                                          const Rows& target) {  // [M, H, D]
#if __CUDA_ARCH__ >= 900
  namespace cg = cooperative_groups;
  const cg::cluster_group cluster = cg::this_cluster();
  cluster.sync();
  const int ranks = static_cast<int>(cluster.num_blocks());
  for (int item = static_cast<int>(cluster.block_rank() * kAttentionThreads + threadIdx.x);
       item < heads.count * target.width; item += ranks * kAttentionThreads) {
    const int head = item / target.width;
    const int i = item % target.width;
    float all = -INFINITY;
    for (int rank = 0; rank < ranks; ++rank) {
      all = fmaxf(all, cluster.map_shared_rank(own, rank)[head].largest);
    }
    float sum = 0;
    float total = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const PartSums<kSize>& sums = cluster.map_shared_rank(own, rank)[head];
      const float factor = FactorOf(sums.largest, all);
      sum += sums.sum * factor;
      total += sums.totals[i] * factor;
    }
    target.At(row, heads.begin + head)[i] = total / sum;
  }
  cluster.sync();  // Others still read this CTA's sums.
#endif
}

// Adds a CTA's parts of each head, in their order, and the cluster's CTAs, and stores the heads.
// Part p of head h is parts[p * step + h], in shared memory. NaN without tokens.
//
// Requires: heads.count <= kHeadsMax.
template <int kSize, int kHeadsMax>
__device__ __forceinline__ void MergeParts(const PartSums<kSize>* parts, int step, int part_count,
                                           const CtaHeads& heads, int row,
                                           const Rows& target) {  // [M, H, D]
  __shared__ PartSums<kSize> own[kHeadsMax];
  const bool is_split = gridDim.z > 1;
  __syncthreads();
  for (int item = static_cast<int>(threadIdx.x); item < heads.count * target.width;
       item += kAttentionThreads) {
    const int head = item / target.width;
    const int i = item % target.width;
    float all = -INFINITY;
    for (int part = 0; part < part_count; ++part) {
      all = fmaxf(all, parts[part * step + head].largest);
    }
    float sum = 0;
    float total = 0;
    for (int part = 0; part < part_count; ++part) {
      const PartSums<kSize>& sums = parts[part * step + head];
      const float factor = FactorOf(sums.largest, all);
      sum += sums.sum * factor;
      total += sums.totals[i] * factor;
    }
    if (!is_split) {
      target.At(row, heads.begin + head)[i] = total / sum;
      continue;
    }
    own[head].totals[i] = total;
    if (i == 0) {
      own[head].largest = all;
      own[head].sum = sum;
    }
  }
  if (is_split) {
    MergeCtas<kSize>(own, heads, row, target);
  }
}

}  // namespace nibble
