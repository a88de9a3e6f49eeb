// Attention over the pages of the key and value cache.

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/attention_sums.cuh"
#include "kernels/early_launch.cuh"
#include "kernels/kv_cache.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"
#include "kernels/team_attention.cuh"

namespace nibble {
namespace {

// Query heads of a CTA, at most: of wide heads one, whose sums fill shared memory.
template <int kPairs>
constexpr int kCtaHeadsMax = kPairs > 4 ? 1 : 4;

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

// Adds the sums of a head's warps, in their order, and stores the heads. NaN without tokens. Warp w
// has head w % heads.count.
template <int kPairs>
__device__ __forceinline__ void MergeWarps(const Softmax<2 * kPairs>& softmax,
                                           const CtaHeads& heads, int row,
                                           const Rows& target) {  // [M, H, D]
  constexpr int kSize = 2 * kPairs * kWarpThreads;
  __shared__ PartSums<kSize> parts[kAttentionWarps];
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  PartSums<kSize>& part = parts[threadIdx.x / kWarpThreads];
  if (lane == 0) {
    part.largest = softmax.largest;
    part.sum = softmax.sum;
  }
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int i = 2 * (lane + pair * kWarpThreads);
    part.totals[i] = softmax.totals[2 * pair];
    part.totals[i + 1] = softmax.totals[2 * pair + 1];
  }
  MergeParts<kSize, kCtaHeadsMax<kPairs>>(parts, heads.count, kAttentionWarps / heads.count, heads,
                                          row, target);
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
  const RowTokens tokens = TokensOf(pages, row);
  const int64_t end = tokens.end;

  float query[2 * kPairs];
  LoadHead<KvType::kF32, kPairs>(queries.At(row, head), cache.size, lane, query);
  Softmax<2 * kPairs> softmax;
  for (int64_t t = tokens.begin + place * kTokens; t < end; t += stride) {
    int64_t slots[kTokens];
    float keys[kTokens][2 * kPairs];
    float values[kTokens][2 * kPairs];
#pragma unroll
    for (int j = 0; j < kTokens; ++j) {
      const int64_t page = t + j < end ? tokens.table[(t + j) >> pages.token_shift] : -1;
      slots[j] = SlotIn(pages, page, cache.slot_count, t + j);
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
  const DeviceShape device = CurrentDeviceShape();
  const AttentionGrid shape = GridFor(args, kCtaHeadsMax<kPairs>, device);
  const dim3 grid(static_cast<unsigned int>(args.rows.bound),
                  static_cast<unsigned int>(args.queries.groups / shape.cta_heads), shape.splits);
  (void)LaunchEarly(device, AttentionKernel<kType, kPairs>, grid, kAttentionThreads, 0, stream,
                    LiveCountOf(args.rows), PagesOf(args), ScoreForm{args.scale, args.softcap},
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
      if (!LaunchTeamAttention<KvType::kF16>(args, stream)) {
        Attend<KvType::kF16>(args, stream);
      }
      break;
    case KvType::kBf16:
      if (!LaunchTeamAttention<KvType::kBf16>(args, stream)) {
        Attend<KvType::kBf16>(args, stream);
      }
      break;
  }
  return cudaGetLastError();
}

cudaError_t LoadPagedAttention() {
  for (const auto load : {LoadType<KvType::kF32>, LoadType<KvType::kF16>, LoadType<KvType::kBf16>,
                          LoadTeamAttention<KvType::kF16>, LoadTeamAttention<KvType::kBf16>}) {
    if (const cudaError_t error = load(); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
