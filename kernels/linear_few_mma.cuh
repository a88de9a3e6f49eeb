// Products of a matrix with up to eight rows on tensor cores: bound by reading the matrix.

#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/mma_units.cuh"

namespace nibble {

inline constexpr int kFewMmaThreads = 512;
inline constexpr int kFewMmaWarps = kFewMmaThreads / kWarpThreads;
inline constexpr int kFewMmaStages = 3;  // Units of a warp: 108 KiB of a multiprocessor in all.
inline constexpr int kFewMmaRingBytes = kFewMmaWarps * kFewMmaStages * kUnitBytes;
// A warp's sums [sum_rows, 16] in shared memory, at most eight rows of several rounds together; the
// stride keeps a warp's stores in different banks.
inline constexpr int kSumStride = 20;
inline constexpr int kFewMmaSumBytes = 2 * kFewMmaWarps * kMmaColumns * kSumStride * 4;

// How a CTA goes through its tiles of 16 rows of the matrix. In a round all warps share a tile,
// warp w taking chunks w, w + 16, ... of its columns; where a row has no more than half as many
// chunks as there are warps, a round is several tiles. If activations do not fit into shared
// memory, the columns are cut into phases, and a CTA goes through all its tiles in each.
struct FewMmaPlan {
  int chunks;        // Of a row.
  int phase_chunks;  // Of a phase; the last may have less.
  int round_tiles;
  int sum_rows;  // Rows of activations whose sums have room: an even number.
  int rounds;    // Whose sums are added at once, so that warps seldom wait for each other.
  int shared_bytes;
};

// Requires: HasMmaShape(shape); 0 < rows <= 8. The order of sums depends on shape and rows.
template <ElementKind kKind, PairTable kTable = PairTable::kDense>
FewMmaPlan FewMmaPlanOf(const MatrixShape& shape, int64_t rows, const DeviceShape& device) {
  constexpr int kColumns = kUnitColumns<kKind>;
  const int fixed_bytes = kTableBytes<kKind, kTable> + kFewMmaRingBytes + kFewMmaSumBytes;
  const int row_bytes = (device.shared_bytes - fixed_bytes) / static_cast<int>(rows);
  FewMmaPlan plan = {};
  plan.chunks = static_cast<int>(CeilDivide(shape.columns, kColumns));
  plan.phase_chunks = plan.chunks;
  const int chunks_max = (row_bytes / 2 - 8) / kColumns;
  if (plan.chunks > chunks_max) {
    plan.phase_chunks = std::max(chunks_max / kFewMmaWarps * kFewMmaWarps, 1);
    if (chunks_max < kFewMmaWarps) {
      plan.phase_chunks = std::max(chunks_max, 1);
    }
  }
  plan.round_tiles = std::max(kFewMmaWarps / plan.chunks, 1);
  plan.sum_rows = static_cast<int>(rows) + static_cast<int>(rows) % 2;
  plan.rounds = kMmaColumns / plan.sum_rows;
  plan.shared_bytes =
      fixed_bytes + StrideOfActivations(plan.phase_chunks * kColumns) * 2 * static_cast<int>(rows);
  return plan;
}

// The units of one warp, in the order in which it multiplies them.
struct UnitCursor {
  int phase;  // First chunk of the phase.
  int64_t tile;
  int chunk;
};

// What a warp knows of its share.
struct WarpShare {
  int64_t tile_begin;
  int64_t tile_end;
  int tile_offset;  // In a round.
  int chunk_offset;

  // Moves on until the cursor is at a unit that there is, or behind the last phase.
  __device__ __forceinline__ void Settle(const FewMmaPlan& plan, UnitCursor& cursor) const {
    while (cursor.phase < plan.chunks) {
      const int end = min(cursor.phase + plan.phase_chunks, plan.chunks);
      if (cursor.tile < tile_end && cursor.chunk < end) {
        return;
      }
      cursor.chunk = cursor.phase + chunk_offset;
      cursor.tile += plan.round_tiles;
      if (cursor.tile >= tile_end || cursor.chunk >= end) {
        cursor.phase = end;
        cursor.tile = tile_begin + tile_offset;
        cursor.chunk = cursor.phase + chunk_offset;
      }
    }
  }
};

// sums += the units of a warp's share of a tile, while later units are on their way.
template <ElementKind kKind, PairTable kTable>
class FewMmaWarp {
 public:
  // Begins to copy the first units.
  __device__ __forceinline__ FewMmaWarp(const MatrixForm& form, const MatrixPlanes& planes,
                                        const FewMmaPlan& plan, const WarpShare& share, char* ring)
      : form_(form), planes_(planes), plan_(plan), share_(share), ring_(ring) {
    ahead_ = {0, share.tile_begin + share.tile_offset, share.chunk_offset};
    share_.Settle(plan_, ahead_);
#pragma unroll
    for (int stage = 0; stage < kFewMmaStages - 1; ++stage) {
      CopyNext();
    }
  }

  // `x` points to the lane's own 16 columns of its row, in the first chunk of the phase.
  __device__ __forceinline__ void MultiplyNext(const char* table, const __nv_bfloat16* x,
                                               bool has_row, float (&sums)[4]) {
    WaitForCopies<kFewMmaStages - 2>();
    __syncwarp();  // Other lanes' copies; and all have read the slot that is overwritten now.
    CopyNext();
    const char* const slot = ring_ + read_ * kUnitBytes;
    read_ = read_ + 1 == kFewMmaStages ? 0 : read_ + 1;
#pragma unroll
    for (int block = 0; block < kUnitBlocks<kKind>; ++block) {
      BlockOperand operand;
      LoadBlock<kKind, kTable>(table, slot, block, operand);
      MultiplyBlock<kKind>(operand, RowsOperand(x + block * kMmaBlock, has_row), sums);
    }
  }

 private:
  __device__ __forceinline__ void CopyNext() {
    if (ahead_.phase < plan_.chunks) {
      CopyUnit<kKind>(form_, planes_, ahead_.tile * kUnitRows, ahead_.chunk,
                      ring_ + write_ * kUnitBytes);
      ahead_.chunk += kFewMmaWarps;
      share_.Settle(plan_, ahead_);
    }
    write_ = write_ + 1 == kFewMmaStages ? 0 : write_ + 1;
    CommitCopies();  // Also an empty group, so that a wait counts units.
  }

  const MatrixForm& form_;
  const MatrixPlanes& planes_;
  const FewMmaPlan& plan_;
  const WarpShare& share_;
  char* const ring_;
  UnitCursor ahead_;
  int read_ = 0;
  int write_ = 0;
};

// Brings columns `begin` on of the activations to bf16 in shared memory, by a CTA.
template <typename SourceOf>
__device__ __forceinline__ void LoadActivations(int64_t begin, int columns, int64_t end,
                                                int row_count, int stride, SourceOf source_of,
                                                __nv_bfloat16* target) {
  constexpr int kQuadsAtOnce = 8;  // On their way, of a thread.
  const int quads = columns / 4;
  const int count = row_count * quads;
  for (int first = static_cast<int>(threadIdx.x); first < count;
       first += kQuadsAtOnce * kFewMmaThreads) {
    float4 numbers[kQuadsAtOnce];
    int places[kQuadsAtOnce];
#pragma unroll
    for (int i = 0; i < kQuadsAtOnce; ++i) {
      const int item = first + i * kFewMmaThreads;
      const int m = row_count == 1 ? 0 : item / quads;
      const int column = (item - m * quads) * 4;
      places[i] = m * stride + column;
      numbers[i] = LoadFour(item < count ? source_of(m) : nullptr, begin + column, end);
    }
#pragma unroll
    for (int i = 0; i < kQuadsAtOnce; ++i) {
      if (first + i * kFewMmaThreads < count) {
        StoreFour(numbers[i], target + places[i]);
      }
    }
  }
}

__device__ __forceinline__ void StoreSums(const float (&sums)[4], int rows, float* target) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  if (lane % 4 * 2 >= rows) {
    return;
  }
  float* const place = target + lane % 4 * 2 * kSumStride + lane / 4;
  place[0] = sums[0];
  place[kSumStride] = sums[1];
  place[8] = sums[2];
  place[kSumStride + 8] = sums[3];
}

// store(m, n, sum, is_first) for all rows of the activations and rows 16 tile_begin to 16 tile_end
// of the matrix, by a whole CTA; what is not first is to be added to what was stored.
//
// The number of rows comes from count_rows(), which is called when the first copies of the matrix
// are on their way: they do not depend on it.
//
// `codes` are the form's, which is read from registers otherwise.
//
// Requires: tile_begin < tile_end; row_count <= the plan's rows; HasMmaShape(), the matrix and
// sources are aligned to 16 bytes; `shared` has plan.shared_bytes, aligned to 128.
template <ElementKind kKind, PairTable kTable, typename CountRows, typename SourceOf,
          typename StoreSum>
__device__ __forceinline__ void MultiplyFewMma(const MatrixForm& form, const CodeTable& codes,
                                               const MatrixPlanes& planes, const FewMmaPlan& plan,
                                               int64_t tile_begin, int64_t tile_end,
                                               CountRows count_rows, SourceOf source_of,
                                               StoreSum store, char* shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  char* const table = shared;
  char* const rings = table + kTableBytes<kKind, kTable>;
  auto* const sums = reinterpret_cast<float*>(rings + kFewMmaRingBytes);
  auto* const x = reinterpret_cast<__nv_bfloat16*>(rings + kFewMmaRingBytes + kFewMmaSumBytes);
  constexpr int kWarpSums = kMmaColumns * kSumStride;
  const int warp_sums = plan.sum_rows * kSumStride;
  constexpr int kColumns = kUnitColumns<kKind>;
  const int stride = StrideOfActivations(plan.phase_chunks * kColumns);
  const bool shares_rounds = plan.round_tiles > 1;
  const int warp_tile = shares_rounds ? warp / plan.chunks : 0;
  // A warp that is left over has no chunk.
  const int warp_chunk = !shares_rounds                 ? warp
                         : warp_tile < plan.round_tiles ? warp % plan.chunks
                                                        : plan.chunks;
  const WarpShare share = {tile_begin, tile_end, warp_tile, warp_chunk};
  FewMmaWarp<kKind, kTable> units(form, planes, plan, share,
                                  rings + warp * kFewMmaStages * kUnitBytes);
  if constexpr (kKind == ElementKind::kFourBit) {
    LoadPairTable<kTable>(codes, table);
  }
  LetNextBegin();
  WaitForPrevious();
  const int row_count = count_rows();
  if (row_count <= 0) {
    WaitForCopies<0>();
    return;
  }
  const bool has_row = lane / 4 < row_count;
  int parity = 0;
  for (int phase = 0; phase < plan.chunks; phase += plan.phase_chunks) {
    const int phase_end = min(phase + plan.phase_chunks, plan.chunks);
    __syncthreads();  // The last phase's activations have been read.
    LoadActivations(static_cast<int64_t>(phase) * kColumns, (phase_end - phase) * kColumns,
                    form.columns, row_count, stride, source_of, x);
    __syncthreads();
    const int tile_warps = shares_rounds ? plan.chunks : min(kFewMmaWarps, phase_end - phase);
    for (int64_t tile = tile_begin; tile < tile_end; tile += plan.rounds * plan.round_tiles) {
      float* const some_sums = sums + parity * kFewMmaWarps * kWarpSums;
      for (int round = 0; round < plan.rounds; ++round) {
        float own[4] = {};
        if (tile + round * plan.round_tiles + warp_tile < tile_end) {
          for (int chunk = phase + warp_chunk; chunk < phase_end; chunk += kFewMmaWarps) {
            units.MultiplyNext(table,
                               x + lane / 4 * stride + (chunk - phase) * kColumns + lane % 4 * 16,
                               has_row, own);
          }
        }
        StoreSums(own, plan.sum_rows, some_sums + (round * kFewMmaWarps + warp) * warp_sums);
      }
      // Sums of the time before the last have been read: whoever did it has come here since.
      __syncthreads();
      const int64_t tiles =
          min(static_cast<int64_t>(plan.rounds) * plan.round_tiles, tile_end - tile);
      for (int item = static_cast<int>(threadIdx.x);
           item < static_cast<int>(tiles) * row_count * kUnitRows; item += kFewMmaThreads) {
        const int m = item / kUnitRows % row_count;
        const int t = item / kUnitRows / row_count;
        const int64_t n = (tile + t) * kUnitRows + item % kUnitRows;
        const int first_warp =
            t / plan.round_tiles * kFewMmaWarps + t % plan.round_tiles * tile_warps;
        const float* const parts =
            some_sums + first_warp * warp_sums + m * kSumStride + item % kUnitRows;
        float sum = 0;
#pragma unroll 4
        for (int w = 0; w < tile_warps; ++w) {
          sum += parts[w * warp_sums];
        }
        if (n < form.rows) {
          store(m, n, sum, phase == 0);
        }
      }
      parity ^= 1;
    }
  }
  WaitForCopies<0>();
}

}  // namespace nibble
