// Attention over the pages of the key and value cache.

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cmath>

#include "kernels/early_launch.cuh"
#include "kernels/kv_cache.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr int kAttentionThreads = 256;
constexpr int kAttentionWarps = kAttentionThreads / kWarpThreads;
constexpr int kAttentionSplitsMax = 8;  // CTAs of a cluster.
// Query heads of a CTA, at most: of wide heads one, whose sums fill shared memory.
template <int kPairs>
constexpr int kCtaHeadsMax = kPairs > 4 ? 1 : 4;

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

// The slot of token t of a sequence, which has a page for it; -1 if the cache has not that page.
__device__ __forceinline__ int64_t SlotOf(const Pages& pages, const int32_t* table,
                                          int64_t slot_count, int64_t t) {
  const int64_t page_index = t >> pages.token_shift;
  const int64_t page = table[page_index];
  const int64_t offset = t - (page_index << pages.token_shift);
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

// A lane's part of a head: numbers 2 lane, 2 lane + 1, 2 lane + 64, ..., so that a warp reads
// 16-bit heads in words. 0 beyond the head.
template <KvType kType, int kPairs>
__device__ __forceinline__ void LoadHead(const typename KvElement<kType>::Storage* head, int size,
                                         int lane, float (&values)[2 * kPairs]) {
  using Storage = typename KvElement<kType>::Storage;
  union Word {
    uint32_t bits;
    Storage elements[sizeof(uint32_t) / sizeof(Storage)];
    __device__ Word() {}
  };
  const bool words = sizeof(Storage) == 2 && size % 2 == 0;  // Then every head is aligned to one.
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int i = 2 * (lane + pair * kWarpThreads);
    if (words) {
      Word word;
      word.bits = i < size ? *reinterpret_cast<const uint32_t*>(head + i) : 0;
      values[2 * pair] = KvElement<kType>::Widen(word.elements[0]);
      values[2 * pair + 1] = KvElement<kType>::Widen(word.elements[sizeof(Storage) == 2 ? 1 : 0]);
    } else {
      values[2 * pair] = i < size ? KvElement<kType>::Widen(head[i]) : 0.0f;
      values[2 * pair + 1] = i + 1 < size ? KvElement<kType>::Widen(head[i + 1]) : 0.0f;
    }
  }
}

// A warp's softmax so far: the largest score, and the sums relative to it.
template <int kPairs>
struct Softmax {
  float largest = -INFINITY;
  float sum = 0;
  float totals[2 * kPairs] = {};

  // Makes `score` the largest that the sums are relative to.
  __device__ __forceinline__ void RaiseTo(float score) {
    if (score > largest) {
      const float factor = expf(largest - score);  // 0 the first time.
      largest = score;
      sum *= factor;
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i) {
        totals[i] *= factor;
      }
    }
  }
};

// The sums of a CTA.
template <int kPairs>
struct CtaSums {
  float largest;
  float sum;
  float totals[2 * kPairs * kWarpThreads];
};

// What sums relative to `largest` are to be multiplied by when `all` is the largest. Without tokens
// it would be inf - inf.
__device__ __forceinline__ float FactorOf(float largest, float all) {
  return largest == -INFINITY ? 0.0f : expf(largest - all);
}

// The heads of a CTA in turn, head `begin` on, with `count` of them: warp w has head w % count.
struct CtaHeads {
  int begin;
  int count;
};

// Adds the sums of a cluster's CTAs, in their order, and stores the heads. NaN without tokens.
template <int kPairs>
__device__ __forceinline__ void MergeCtas(CtaSums<kPairs>* own,  // [heads.count]
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
      const CtaSums<kPairs>& sums = cluster.map_shared_rank(own, rank)[head];
      const float factor = FactorOf(sums.largest, all);
      sum += sums.sum * factor;
      total += sums.totals[i] * factor;
    }
    target.At(row, heads.begin + head)[i] = total / sum;
  }
  cluster.sync();  // Others still read this CTA's sums.
#endif
}

// Adds the sums of a head's warps, in their order, and stores the heads. NaN without tokens.
template <int kPairs>
__device__ __forceinline__ void MergeWarps(const Softmax<kPairs>& softmax, const CtaHeads& heads,
                                           int row, const Rows& target) {  // [M, H, D]
  __shared__ float largest[kAttentionWarps];
  __shared__ float sums[kAttentionWarps];
  __shared__ float totals[kAttentionWarps][2 * kPairs * kWarpThreads];
  __shared__ CtaSums<kPairs> own[kCtaHeadsMax<kPairs>];
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  if (lane == 0) {
    largest[warp] = softmax.largest;
    sums[warp] = softmax.sum;
  }
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int i = 2 * (lane + pair * kWarpThreads);
    totals[warp][i] = softmax.totals[2 * pair];
    totals[warp][i + 1] = softmax.totals[2 * pair + 1];
  }
  __syncthreads();
  const bool is_split = gridDim.z > 1;
  for (int item = static_cast<int>(threadIdx.x); item < heads.count * target.width;
       item += kAttentionThreads) {
    const int head = item / target.width;
    const int i = item % target.width;
    float all = -INFINITY;
    for (int w = head; w < kAttentionWarps; w += heads.count) {
      all = fmaxf(all, largest[w]);
    }
    float sum = 0;
    float total = 0;
    for (int w = head; w < kAttentionWarps; w += heads.count) {
      const float factor = FactorOf(largest[w], all);
      sum += sums[w] * factor;
      total += totals[w][i] * factor;
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
    MergeCtas<kPairs>(own, heads, row, target);
  }
}

// Tokens whose keys and values a warp has on their way at once.
template <int kPairs>
constexpr int kWarpTokens = kPairs > 4   ? 1
                            : kPairs > 2 ? 4
                                         : 8;

// A CTA, or a cluster of them, is one or several query heads of one row, which share a key head and
// so its first-level cache. A head's warps take kWarpTokens tokens in turn, each with a softmax of
// its own, and are merged at the end: the order depends on the positions, the heads of a CTA and
// the size of the cluster.
//
//   grid   bound x H / heads of a CTA x CTAs of a cluster
//   block  256 threads
//   bytes  2 D (4 D for fp32) elements of keys and values a token and query head; bound by memory
//          latency while a step has few rows
template <KvType kType, int kPairs>
__global__ void __launch_bounds__(kAttentionThreads)
    AttentionKernel(LiveCount rows, Pages pages, ScoreForm form, CacheView<kType> cache,
                    int cta_heads,
                    Rows queries,   // [M, H, D]
                    Rows target) {  // [M, H, D]
  constexpr int kTokens = kWarpTokens<kPairs>;
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  if (row >= rows.Read()) {
    return;
  }
  const CtaHeads heads = {static_cast<int>(blockIdx.y) * cta_heads, cta_heads};
  const int key_head = heads.begin / (queries.groups / cache.heads);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int head = heads.begin + warp % cta_heads;
  const int head_warps = kAttentionWarps / cta_heads;
  const int place = static_cast<int>(blockIdx.z) * head_warps + warp / cta_heads;
  const int64_t stride = static_cast<int64_t>(gridDim.z) * head_warps * kTokens;
  const int64_t sequence = pages.row_sequences[row];
  const int64_t position = pages.positions[row];
  // A row of no sequence, or beyond its pages, has no tokens and becomes NaN.
  const bool holds = sequence >= 0 && sequence < pages.sequence_count &&
                     position >> pages.token_shift < pages.pages_max;
  const int32_t* const table = pages.tables + (holds ? sequence : 0) * pages.pages_max;
  const int64_t end = holds ? position + 1 : 0;
  const int64_t begin = pages.window == 0 || end < pages.window ? 0 : end - pages.window;

  float query[2 * kPairs];
  LoadHead<KvType::kF32, kPairs>(queries.At(row, head), cache.size, lane, query);
  Softmax<kPairs> softmax;
  for (int64_t t = begin + place * kTokens; t < end; t += stride) {
    int64_t slots[kTokens];
    float keys[kTokens][2 * kPairs];
    float values[kTokens][2 * kPairs];
#pragma unroll
    for (int j = 0; j < kTokens; ++j) {
      slots[j] = t + j < end ? SlotOf(pages, table, cache.slot_count, t + j) : -1;
    }
    // A slot that is missing is read as the first, so that no load waits for a branch.
#pragma unroll
    for (int j = 0; j < kTokens; ++j) {
      const int64_t offset = (max(slots[j], int64_t{0}) * cache.heads + key_head) * cache.size;
      LoadHead<kType, kPairs>(cache.keys + offset, cache.size, lane, keys[j]);
      LoadHead<kType, kPairs>(cache.values + offset, cache.size, lane, values[j]);
    }
    float scores[kTokens];
    float largest = -INFINITY;
#pragma unroll
    for (int j = 0; j < kTokens; ++j) {
      float product = 0;
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i) {
        product = __fmaf_rn(query[i], keys[j][i], product);
      }
      // A token whose page is missing makes the head NaN; one beyond the end weighs nothing.
      const float score = form.Of(WarpSum(product));
      scores[j] = t + j >= end ? -INFINITY : slots[j] < 0 ? NAN : score;
      largest = fmaxf(largest, scores[j]);
    }
    softmax.RaiseTo(largest);
#pragma unroll
    for (int j = 0; j < kTokens; ++j) {
      if (t + j < end) {
        const float weight = expf(scores[j] - softmax.largest);
        softmax.sum += weight;
#pragma unroll
        for (int i = 0; i < 2 * kPairs; ++i) {
          softmax.totals[i] = __fmaf_rn(weight, values[j][i], softmax.totals[i]);
        }
      }
    }
  }
  MergeWarps<kPairs>(softmax, heads, row, target);
}

struct AttentionGrid {
  int cta_heads = 1;
  unsigned int splits = 1;
};

// By shapes and the bound alone: as many heads of a key head in a CTA as leave enough CTAs to keep
// the multiprocessors at work, where up to eight share a head's tokens.
AttentionGrid GridFor(const AttentionArgs& args, int cta_heads_max, const DeviceShape& device) {
  AttentionGrid grid;
  if (args.batch_invariant) {
    return grid;
  }
  const int64_t group = args.queries.groups / args.cache.heads;
  const int64_t wanted = int64_t{3} * device.processors / 2;
  const auto ctas = [&] {
    return args.rows.bound * args.queries.groups / grid.cta_heads * grid.splits;
  };
  while (2 * grid.cta_heads <= cta_heads_max && group % (2 * grid.cta_heads) == 0) {
    grid.cta_heads *= 2;
  }
  while (device.capability >= 9 && grid.splits < kAttentionSplitsMax && ctas() < wanted) {
    grid.splits *= 2;
  }
  while (grid.cta_heads > 1 && ctas() < wanted) {
    grid.cta_heads /= 2;
  }
  return grid;
}

template <KvType kType, int kPairs>
void AttendPairs(const AttentionArgs& args, cudaStream_t stream) {
  constexpr auto kIndexBytes = static_cast<int64_t>(sizeof(int32_t));
  Pages pages = {};
  pages.tables = PointerTo<const int32_t>(args.page_tables);
  pages.row_sequences = PointerTo<const int32_t>(args.row_sequences);
  pages.positions = PointerTo<const int32_t>(args.positions);
  pages.sequence_count = args.page_tables.bytes() / (args.pages_max * kIndexBytes);
  pages.pages_max = args.pages_max;
  pages.token_shift = std::countr_zero(static_cast<uint64_t>(args.page_tokens));
  pages.window = args.window;
  const DeviceShape device = CurrentDeviceShape();
  const AttentionGrid shape = GridFor(args, kCtaHeadsMax<kPairs>, device);
  const dim3 grid(static_cast<unsigned int>(args.rows.bound),
                  static_cast<unsigned int>(args.queries.groups / shape.cta_heads), shape.splits);
  (void)LaunchEarly(device, AttentionKernel<kType, kPairs>, grid, kAttentionThreads, 0, stream,
                    LiveCountOf(args.rows), pages, ScoreForm{args.scale, args.softcap},
                    CacheViewOf<kType>(args.cache), shape.cta_heads, RowsOf(args.queries),
                    RowsOf(args.target));
}

template <KvType kType>
void Attend(const AttentionArgs& args, cudaStream_t stream) {
  if (args.cache.head_size <= 64) {
    AttendPairs<kType, 1>(args, stream);
  } else if (args.cache.head_size <= 128) {
    AttendPairs<kType, 2>(args, stream);
  } else if (args.cache.head_size <= 256) {
    AttendPairs<kType, 4>(args, stream);
  } else {
    AttendPairs<kType, 16>(args, stream);
  }
}

template <KvType kType>
cudaError_t LoadType() {
  return Touch(AttentionKernel<kType, 1>, AttentionKernel<kType, 2>, AttentionKernel<kType, 4>,
               AttentionKernel<kType, 16>);
}

}  // namespace

cudaError_t LaunchAttention(const AttentionArgs& args, cudaStream_t stream) {
  switch (args.cache.type) {
    case KvType::kF32:
      Attend<KvType::kF32>(args, stream);
      break;
    case KvType::kF16:
      Attend<KvType::kF16>(args, stream);
      break;
    case KvType::kBf16:
      Attend<KvType::kBf16>(args, stream);
      break;
  }
  return cudaGetLastError();
}

cudaError_t LoadPagedAttention() {
  for (const auto load :
       {LoadType<KvType::kF32>, LoadType<KvType::kF16>, LoadType<KvType::kBf16>}) {
    if (const cudaError_t error = load(); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
