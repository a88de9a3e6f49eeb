// A weight matrix as the operand of tensor-core products: what linear_few_mma.cuh and
// linear_tile_mma.cuh share.
//
// A warp multiplies units: 16 rows of the matrix by 128 bytes of each, which are 256 columns in 4
// bits and 64 in 16 bits. Units come from memory by asynchronous copies into a ring that belongs to
// the warp, so that many bytes are on their way while it multiplies.
//
// Within a block of 64 columns, lane 4 g + t holds columns 16 t to 16 t + 15 of rows g and g + 8,
// and of row g of the activations: 8 bytes of codes are one load. mma.m16n8k16 adds over its 16
// columns in no order that we could choose, so any set of 16 serves as long as both operands take
// the same: step s multiplies columns 16 t + 4 s to 16 t + 4 s + 3 of each t.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/early_launch.cuh"
#include "kernels/matrix_elements.cuh"
#include "kernels/step_rows.cuh"

namespace nibble {

inline constexpr int kMmaBlock = 64;  // Columns that share a scale, or a part of those that do.
inline constexpr int kUnitRows = 16;
inline constexpr int kUnitRowBytes = 128;
inline constexpr int kUnitDataBytes = kUnitRows * kUnitRowBytes;
inline constexpr int kUnitScales = kUnitRows * 4;
inline constexpr int kUnitBytes = kUnitDataBytes + kUnitScales * 4;
inline constexpr int kMmaColumns = 8;  // Rows of activations that one instruction multiplies.

template <ElementKind kKind>
inline constexpr int kUnitBlocks = kKind == ElementKind::kFourBit ? 4 : 1;
template <ElementKind kKind>
inline constexpr int kUnitColumns = kUnitBlocks<kKind>* kMmaBlock;

// A byte of two codes is looked up as two bf16 numbers. Each of 32 lanes has a copy of the table in
// a bank of its own, so that no two lanes wait for each other. Where shared memory has room, pairs
// are 256 bytes apart, half of them unused: then the place of a pair is one instruction.
enum class PairTable : int { kDense = kWarpThreads * 4, kWide = 256 };
template <ElementKind kKind, PairTable kTable = PairTable::kDense>
inline constexpr int kTableBytes = kKind == ElementKind::kFourBit ? 256 * static_cast<int>(kTable)
                                                                  : 0;

// Whether the kernels on tensor cores can read matrices of this shape, wherever they lie.
inline bool HasMmaShape(const MatrixShape& shape) {
  if (shape.columns % kMmaBlock != 0 || shape.format == MatrixFormat::kF32) {
    return false;
  }
  return !IsFourBit(shape.format) || (shape.block_size >= kMmaBlock && !shape.double_quantized);
}

inline constexpr int kMmaAlignment = 16;  // Of a matrix, and of rows of activations.

// Whether every row, and every group of it, can be read 16 bytes at once.
inline bool HasWideActivations(const Activations& activations) {
  return IsAligned(activations.span.address(), kMmaAlignment) && activations.row_stride % 4 == 0 &&
         activations.group_stride % 4 == 0;
}

// Copies 16 or 4 bytes to shared memory without waiting; zeros if not `valid`.
__device__ __forceinline__ void CopyAsync16(void* target, const void* source, bool valid) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(target));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(source),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CopyAsync4(void* target, const void* source, bool valid) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(target));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(source),
               "r"(valid ? 4 : 0)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until no more than the `kPending` groups committed last are on their way, of this thread.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// sums += a * b: 16 rows of 16 bf16 numbers by 8 columns.
__device__ __forceinline__ void MultiplyAdd(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Fills the table of all pairs of codes, by a whole CTA. The even element, in the high nibble,
// comes first. A __syncthreads() must follow.
template <PairTable kTable = PairTable::kDense>
__device__ __forceinline__ void LoadPairTable(const CodeTable& codes, char* table) {
  constexpr int kQuads = 256 * kWarpThreads / 4;
  for (int quad = static_cast<int>(threadIdx.x); quad < kQuads;
       quad += static_cast<int>(blockDim.x)) {
    const int byte = quad / (kWarpThreads / 4);
    const uint32_t pair = PackBf16(codes.values[byte >> 4], codes.values[byte & 15]);
    char* const place = table + byte * static_cast<int>(kTable) + quad % (kWarpThreads / 4) * 16;
    *reinterpret_cast<uint4*>(place) = make_uint4(pair, pair, pair, pair);
  }
}

// Where 16 bytes number `part` of a row lie: so that the lanes that read at once are in different
// banks, see LoadBlock().
template <ElementKind kKind>
__device__ __forceinline__ int PlaceOfPart(int row, int part) {
  if constexpr (kKind == ElementKind::kFourBit) {
    return row * kUnitRowBytes + (part ^ (row % 4 * 2)) * 16;
  } else {
    return row * kUnitRowBytes + (part ^ (row % 2)) * 16;
  }
}

// CopyUnit() for units that end within the matrix: few instructions, all lanes copy.
template <ElementKind kKind>
__device__ __forceinline__ void CopyInnerUnit(const MatrixForm& form, const MatrixPlanes& planes,
                                              int64_t row, int chunk, char* slot) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int64_t row_bytes = kKind == ElementKind::kFourBit ? form.columns / 2 : form.columns * 2;
  const char* source = reinterpret_cast<const char*>(planes.data) + row * row_bytes +
                       static_cast<int64_t>(chunk) * kUnitRowBytes +
                       (lane / 8 * row_bytes + lane % 8 * 16);
  char* target = slot + PlaceOfPart<kKind>(lane / 8, lane % 8);
#pragma unroll
  for (int i = 0; i < kUnitDataBytes / 16 / kWarpThreads; ++i) {
    CopyAsync16(target + i * 4 * kUnitRowBytes, source, true);
    source += 4 * row_bytes;
  }
}

// Begins to copy the unit of rows `row` on and 128 bytes number `chunk`, by a warp. What lies
// beyond the matrix becomes zeros, whose scale is 0 too.
template <ElementKind kKind>
__device__ __forceinline__ void CopyUnit(const MatrixForm& form, const MatrixPlanes& planes,
                                         int64_t row, int chunk, char* slot) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int64_t row_bytes = kKind == ElementKind::kFourBit ? form.columns / 2 : form.columns * 2;
  const auto* const data = reinterpret_cast<const char*>(planes.data);
  const bool is_inner = row + kUnitRows <= form.rows &&
                        (static_cast<int64_t>(chunk) + 1) * kUnitRowBytes <= row_bytes;
  if (is_inner) {
    CopyInnerUnit<kKind>(form, planes, row, chunk, slot);
  } else {
#pragma unroll
    for (int i = 0; i < kUnitDataBytes / 16 / kWarpThreads; ++i) {
      const int r = i * 4 + lane / 8;
      const int64_t byte = static_cast<int64_t>(chunk) * kUnitRowBytes + lane % 8 * 16;
      const bool valid = row + r < form.rows && byte < row_bytes;
      CopyAsync16(slot + PlaceOfPart<kKind>(r, lane % 8),
                  data + (valid ? (row + r) * row_bytes + byte : 0), valid);
    }
  }
  if constexpr (kKind == ElementKind::kFourBit) {
    const auto* const scales = reinterpret_cast<const float*>(planes.scales);
    // A block of 64 columns has a scale of its own, and those of a row of the unit are aligned.
    const bool has_quads = form.columns % kUnitColumns<kKind> == 0 &&
                           1 << form.block_shift == kMmaBlock && planes.scales % 16 == 0;
    if (is_inner && has_quads) {
      if (lane < kUnitRows) {
        const int64_t row_scales = form.columns / kMmaBlock;
        CopyAsync16(slot + kUnitDataBytes + lane * 16,
                    scales + row * row_scales + int64_t{4} * chunk + lane * row_scales, true);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kUnitScales / kWarpThreads; ++i) {
      const int r = i * 8 + lane / 4;
      const int64_t k = static_cast<int64_t>(chunk) * kUnitColumns<kKind> + lane % 4 * kMmaBlock;
      const bool valid = row + r < form.rows && k < form.columns;
      CopyAsync4(slot + kUnitDataBytes + (i * kWarpThreads + lane) * 4,
                 scales + (valid ? ((row + r) * form.columns + k) >> form.block_shift : 0), valid);
    }
  }
}

// A block of a unit as the four operands of four steps.
struct BlockOperand {
  uint32_t steps[4][4];
  float scale_low;   // Of row g,
  float scale_high;  // and of row g + 8.
};

// Byte kByte of `codes` as a pair; `lane_offset` is the lane's place among the copies of one.
template <PairTable kTable, int kByte>
__device__ __forceinline__ uint32_t PairOf(const char* table, uint32_t lane_offset,
                                           uint32_t codes) {
  uint32_t place = 0;
  if constexpr (kTable == PairTable::kWide) {
    // Byte 0 of the lane's offset, the code, and twice a zero byte of the offset.
    place = __byte_perm(codes, lane_offset, 0x5504 | kByte << 4);
  } else {
    place = ((kByte == 0 ? codes << 7 : codes >> (8 * kByte - 7)) & 0x7f80u) | lane_offset;
  }
  return *reinterpret_cast<const uint32_t*>(table + place);
}

__device__ __forceinline__ uint32_t HalvesToBf16(uint32_t halves) {
  const float2 numbers = __half22float2(*reinterpret_cast<const __half2*>(&halves));
  return PackBf16(numbers.x, numbers.y);
}

template <ElementKind kKind, PairTable kTable = PairTable::kDense>
__device__ __forceinline__ void LoadBlock(const char* table, const char* slot, int block,
                                          BlockOperand& operand) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int g = lane / 4;
  const int t = lane % 4;
  if constexpr (kKind == ElementKind::kFourBit) {
    const char* const place = slot + PlaceOfPart<kKind>(g, 2 * block + t / 2) + t % 2 * 8;
    const uint2 low = *reinterpret_cast<const uint2*>(place);
    const uint2 high = *reinterpret_cast<const uint2*>(place + 8 * kUnitRowBytes);
    const auto* const scales = reinterpret_cast<const float*>(slot + kUnitDataBytes);
    operand.scale_low = scales[g * 4 + block];
    operand.scale_high = scales[(g + 8) * 4 + block];
    const auto offset = static_cast<uint32_t>(lane * 4);
    const uint32_t words[2][2] = {{low.x, high.x}, {low.y, high.y}};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        operand.steps[2 * half][i] = PairOf<kTable, 0>(table, offset, words[half][i]);
        operand.steps[2 * half][2 + i] = PairOf<kTable, 1>(table, offset, words[half][i]);
        operand.steps[2 * half + 1][i] = PairOf<kTable, 2>(table, offset, words[half][i]);
        operand.steps[2 * half + 1][2 + i] = PairOf<kTable, 3>(table, offset, words[half][i]);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint4 words = *reinterpret_cast<const uint4*>(slot + PlaceOfPart<kKind>(g, 2 * t + half) +
                                                      i * 8 * kUnitRowBytes);
        if constexpr (kKind == ElementKind::kF16) {
          words = make_uint4(HalvesToBf16(words.x), HalvesToBf16(words.y), HalvesToBf16(words.z),
                             HalvesToBf16(words.w));
        }
        operand.steps[2 * half][i] = words.x;
        operand.steps[2 * half][2 + i] = words.y;
        operand.steps[2 * half + 1][i] = words.z;
        operand.steps[2 * half + 1][2 + i] = words.w;
      }
    }
  }
}

// Numbers between rows of activations in shared memory: 16 bytes more than a multiple of 32, so
// that eight lanes that read 16 bytes each are in different banks.
constexpr int StrideOfActivations(int columns) { return columns + 8; }

// Eight rows of activations as the other operand: a lane's 16 columns of its row.
struct RowsOperand {
  uint4 low;
  uint4 high;

  // `x` points to row lane / 4, column lane % 4 * 16 of the block; zeros if there is no such row.
  __device__ __forceinline__ RowsOperand(const __nv_bfloat16* x, bool has_row)
      : low(make_uint4(0, 0, 0, 0)), high(low) {
    if (has_row) {
      low = *reinterpret_cast<const uint4*>(x);
      high = *(reinterpret_cast<const uint4*>(x) + 1);
    }
  }
};

// sums += a block of the matrix times rows of activations.
template <ElementKind kKind>
__device__ __forceinline__ void MultiplyBlock(const BlockOperand& block, const RowsOperand& rows,
                                              float (&sums)[4]) {
  if constexpr (kKind == ElementKind::kFourBit) {
    float block_sums[4] = {};
    MultiplyAdd(block_sums, block.steps[0], rows.low.x, rows.low.y);
    MultiplyAdd(block_sums, block.steps[1], rows.low.z, rows.low.w);
    MultiplyAdd(block_sums, block.steps[2], rows.high.x, rows.high.y);
    MultiplyAdd(block_sums, block.steps[3], rows.high.z, rows.high.w);
    sums[0] = __fmaf_rn(block_sums[0], block.scale_low, sums[0]);
    sums[1] = __fmaf_rn(block_sums[1], block.scale_low, sums[1]);
    sums[2] = __fmaf_rn(block_sums[2], block.scale_high, sums[2]);
    sums[3] = __fmaf_rn(block_sums[3], block.scale_high, sums[3]);
  } else {
    MultiplyAdd(sums, block.steps[0], rows.low.x, rows.low.y);
    MultiplyAdd(sums, block.steps[1], rows.low.z, rows.low.w);
    MultiplyAdd(sums, block.steps[2], rows.high.x, rows.high.y);
    MultiplyAdd(sums, block.steps[3], rows.high.z, rows.high.w);
  }
}

// Four numbers of a row of activations; zeros beyond the last column, or if there is no row.
//
// Requires: the row is aligned to 16 bytes and k is a multiple of 4.
__device__ __forceinline__ float4 LoadFour(const float* row, int64_t k, int64_t columns) {
  if (row == nullptr || k >= columns) {
    return make_float4(0, 0, 0, 0);
  }
  return *reinterpret_cast<const float4*>(row + k);
}

__device__ __forceinline__ void StoreFour(const float4& numbers, __nv_bfloat16* target) {
  *reinterpret_cast<uint2*>(target) =
      make_uint2(PackBf16(numbers.x, numbers.y), PackBf16(numbers.z, numbers.w));
}

}  // namespace nibble
