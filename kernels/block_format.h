// The 4-bit block formats of bitsandbytes, NF4 and FP4: the one description that host code, device
// code and tests share.
//
// A tensor of n elements is flattened row-major and cut into blocks of `block_size` elements, the
// last one possibly shorter. It is stored as two planes:
//
//   codes   uint8  [(n + 1) / 2]           two codes a byte, the even element in the HIGH nibble
//   scales  fp32   [ceil(n / block_size)]  the largest magnitude of each block ("absmax"), or what
//                                          a scale search finds better (scale_search_table.h)
//
// An element decodes to codebook[code] * scale. Codebooks, thresholds and edge cases stand in
// nf4_format.h and fp4_format.h. With n odd, the last low nibble is the code of an element of 0.
//
// Source: bitsandbytes csrc/kernels.cu, checked against data made on a GPU (tests/data/quant).
// Cost: 4 + 32 / block_size bits an element (4.5 at 64).

#pragma once

#include <cstdint>

#include "kernels/bytes.h"

namespace nibble {

// Which 16 values the codes stand for.
enum class Codebook { kNf4, kFp4 };

// How a block's scale is chosen. Whatever the choice, the planes are the same and any reader of the
// format decodes them.
enum class ScaleSearch {
  kNone,      // The largest magnitude, as bitsandbytes has it. The fastest, and its bytes.
  kPositive,  // One of less squared error: 14.6 % less for NF4, normal data and blocks of 64.
  kSigned,    // The same, or its negative, which turns NF4's table round: 19.2 % less. Slower by a
              // tenth than kPositive. FP4's table is symmetric and takes it for kPositive.
};

// The number formats that weights arrive in.
enum class FloatType { kF32, kF16, kBf16 };

constexpr int64_t BytesPerElement(FloatType type) { return type == FloatType::kF32 ? 4 : 2; }

inline constexpr int64_t kBlockSizeDefault = 64;
inline constexpr int64_t kBlockSizeMin = 32;
inline constexpr int64_t kBlockSizeMax = 4096;

// bitsandbytes allows the powers of two from 32 to 4096.
constexpr bool IsBlockSize(int64_t block_size) {
  return block_size >= kBlockSizeMin && block_size <= kBlockSizeMax &&
         (block_size & (block_size - 1)) == 0;
}

constexpr int64_t CodeBytes(int64_t element_count) { return (element_count + 1) / 2; }
constexpr int64_t BlockCount(int64_t element_count, int64_t block_size) {
  return CeilDivide(element_count, block_size);
}
constexpr int64_t ScaleBytes(int64_t element_count, int64_t block_size) {
  return BlockCount(element_count, block_size) * 4;
}

static_assert(CodeBytes(64) + ScaleBytes(64, 64) == 36, "4.5 bits an element");
static_assert(CodeBytes(65) == 33 && BlockCount(65, 64) == 2, "a short last block");

}  // namespace nibble
