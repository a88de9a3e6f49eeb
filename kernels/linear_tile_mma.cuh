// Products of a matrix with many rows on tensor cores. A CTA of eight warps multiplies a tile of
// the matrix, each warp rows of its own, with up to 64 rows of activations, which are brought to
// bf16 in shared memory one chunk of columns ahead of the warps.

#pragma once

#include <cooperative_groups.h>

#include <cstdint>

#include "kernels/mma_units.cuh"

namespace nibble {

inline constexpr int kTileMmaThreads = 256;
inline constexpr int kTileMmaWarps = kTileMmaThreads / kWarpThreads;
inline constexpr int kTileMmaRowsMax = 64;   // Of activations.
inline constexpr int kTileMmaSplitsMax = 8;  // CTAs of a cluster.

// The kernel's shape: each warp has kUnits units of 16 rows of the matrix, and activations are
// kGroups groups of eight rows.
template <ElementKind kKind, int kUnits, int kGroups>
struct TileMmaForm {
  // Two CTAs of a multiprocessor hide each other's barriers, if they fit; else rings are longer.
  static constexpr int kCtas = kUnits == 1 && kGroups <= 4 ? 2 : 1;
  static constexpr int kStages = kCtas == 2 ? 2 : 3;
  static constexpr int kMatrixRows = kTileMmaWarps * kUnits * kUnitRows;
  static constexpr int kRows = kGroups * kMmaColumns;
  static constexpr int kStride = StrideOfActivations(kUnitColumns<kKind>);
  static constexpr int kRingBytes = kTileMmaWarps * kStages * kUnits * kUnitBytes;
  static constexpr int kActivationBytes = kRows * kStride * 2;
  static constexpr int kSharedBytes = kTableBytes<kKind> + kRingBytes + 2 * kActivationBytes;
  // A cluster's partial sums [kRows, kMatrixRows] lie where rings and activations were.
  static constexpr int kSumStride = kMatrixRows + 4;
  static_assert(kRows * kSumStride * 4 <= kRingBytes + 2 * kActivationBytes);
  // Each thread brings so many times four numbers of a block of columns.
  static constexpr int kQuads = kRows * (kMmaBlock / 4) / kTileMmaThreads;
  static_assert(kQuads * kTileMmaThreads == kRows * (kMmaBlock / 4));
};

struct TileMmaPlaces {
  char* table;
  char* rings;
  __nv_bfloat16* activations;  // Two of them.
};

template <class Form, ElementKind kKind>
__device__ __forceinline__ TileMmaPlaces TileMmaPlacesIn(char* shared) {
  char* const rings = shared + kTableBytes<kKind>;
  return {shared, rings, reinterpret_cast<__nv_bfloat16*>(rings + Form::kRingBytes)};
}

// The numbers of a block of columns that a thread brings to shared memory.
template <class Form>
struct ActivationPiece {
  float4 quads[Form::kQuads];

  __device__ __forceinline__ void Load(const float* const (&rows)[Form::kQuads], int64_t k,
                                       int64_t columns) {
#pragma unroll
    for (int i = 0; i < Form::kQuads; ++i) {
      quads[i] = LoadFour(rows[i], k + threadIdx.x % 16 * 4, columns);
    }
  }
  // `target` is the block's first column.
  __device__ __forceinline__ void Store(__nv_bfloat16* target) const {
#pragma unroll
    for (int i = 0; i < Form::kQuads; ++i) {
      const int row = i * (kTileMmaThreads / 16) + static_cast<int>(threadIdx.x) / 16;
      StoreFour(quads[i], target + row * Form::kStride + threadIdx.x % 16 * 4);
    }
  }
};

// sums[u][j] = rows of the warp's unit u times rows 8 j to 8 j + 7 of the activations, over chunks
// `chunk_begin` to `chunk_end` in order, by a whole CTA. source_of(m) is null from the last row on.
//
// Requires: chunk_begin < chunk_end; the table is written, or is so before the first
// __syncthreads(). Ends with shared memory in use by other warps.
template <ElementKind kKind, int kUnits, int kGroups, typename SourceOf>
__device__ __forceinline__ void MultiplyTileMma(const MatrixForm& form, const MatrixPlanes& planes,
                                                int64_t first, int chunk_begin, int chunk_end,
                                                SourceOf source_of, const TileMmaPlaces& places,
                                                float (&sums)[kUnits][kGroups][4]) {
  using Form = TileMmaForm<kKind, kUnits, kGroups>;
  constexpr int kColumns = kUnitColumns<kKind>;
  // With two units the sums leave no registers for more.
  constexpr int kBlocksAtOnce = kUnits == 1 ? kUnitBlocks<kKind> : 1;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int64_t warp_row = first + warp * kUnits * kUnitRows;
  char* const ring = places.rings + warp * Form::kStages * kUnits * kUnitBytes;
  const auto copy = [&](int chunk) {
    if (chunk < chunk_end) {
      char* const slot = ring + (chunk - chunk_begin) % Form::kStages * kUnits * kUnitBytes;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        CopyUnit<kKind>(form, planes, warp_row + u * kUnitRows, chunk, slot + u * kUnitBytes);
      }
    }
    CommitCopies();
  };
#pragma unroll
  for (int stage = 0; stage < Form::kStages - 1; ++stage) {
    copy(chunk_begin + stage);
  }
  const float* rows[Form::kQuads];
#pragma unroll
  for (int i = 0; i < Form::kQuads; ++i) {
    rows[i] = source_of(i * (kTileMmaThreads / 16) + static_cast<int>(threadIdx.x) / 16);
  }
  // All of a chunk is on its way at once: a block by itself would be waited for four times.
  ActivationPiece<Form> pieces[kUnitBlocks<kKind>];
  const auto load = [&](int chunk) {
#pragma unroll
    for (int block = 0; block < kUnitBlocks<kKind>; ++block) {
      pieces[block].Load(rows, static_cast<int64_t>(chunk) * kColumns + block * kMmaBlock,
                         form.columns);
    }
  };
  const auto store = [&](__nv_bfloat16* target) {
#pragma unroll
    for (int block = 0; block < kUnitBlocks<kKind>; ++block) {
      pieces[block].Store(target + block * kMmaBlock);
    }
  };
  load(chunk_begin);
  store(places.activations);
  int parity = 0;
  for (int chunk = chunk_begin; chunk < chunk_end; ++chunk) {
    WaitForCopies<Form::kStages - 2>();
    __syncthreads();  // This chunk is there, and the last has been read.
    copy(chunk + Form::kStages - 1);
    const char* const slot = ring + (chunk - chunk_begin) % Form::kStages * kUnits * kUnitBytes;
    const __nv_bfloat16* const x = places.activations + parity * (Form::kActivationBytes / 2) +
                                   lane / 4 * Form::kStride + lane % 4 * 16;
    parity ^= 1;
    __nv_bfloat16* const next = places.activations + parity * (Form::kActivationBytes / 2);
    const bool has_next = chunk + 1 < chunk_end;
    if (has_next) {
      load(chunk + 1);
    }
#pragma unroll kBlocksAtOnce
    for (int block = 0; block < kUnitBlocks<kKind>; ++block) {
      BlockOperand operands[kUnits];
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        LoadBlock<kKind>(places.table, slot + u * kUnitBytes, block, operands[u]);
      }
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
        const RowsOperand operand(x + j * kMmaColumns * Form::kStride + block * kMmaBlock, true);
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
          MultiplyBlock<kKind>(operands[u], operand, sums[u][j]);
        }
      }
    }
    if (has_next) {
      store(next);
    }
  }
}

// Calls store(m, n, sum) with every sum of a warp, m and n from the tile's own on.
template <int kUnits, int kGroups, typename StoreSum>
__device__ __forceinline__ void ForEachSum(const float (&sums)[kUnits][kGroups][4],
                                           StoreSum store) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        store(j * kMmaColumns + lane % 4 * 2 + i % 2,
              (warp * kUnits + u) * kUnitRows + lane / 4 + i / 2 * 8, sums[u][j][i]);
      }
    }
  }
}

// Adds the sums of a cluster's CTAs in the order of their ranks, and calls store(m, n, sum) for
// those that fall to this one.
//
// Requires: the CTA's rings and activations are no longer used by any of its warps.
template <class Form, int kUnits, int kGroups, typename StoreSum>
__device__ __forceinline__ void AddOverCluster(const float (&sums)[kUnits][kGroups][4],
                                               int row_count, float* partial, StoreSum store) {
#if __CUDA_ARCH__ >= 900
  namespace cg = cooperative_groups;
  const cg::cluster_group cluster = cg::this_cluster();
  ForEachSum(sums, [&](int m, int n, float sum) { partial[m * Form::kSumStride + n] = sum; });
  cluster.sync();
  const int ranks = static_cast<int>(cluster.num_blocks());
  for (int item = static_cast<int>(cluster.block_rank() * kTileMmaThreads + threadIdx.x);
       item < row_count * Form::kMatrixRows; item += ranks * kTileMmaThreads) {
    const int m = item / Form::kMatrixRows;
    const int n = item % Form::kMatrixRows;
    float sum = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      sum += cluster.map_shared_rank(partial, rank)[m * Form::kSumStride + n];
    }
    store(m, n, sum);
  }
  cluster.sync();  // Others still read this CTA's sums.
#endif
}

}  // namespace nibble
