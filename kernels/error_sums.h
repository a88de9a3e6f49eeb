// What a 4-bit tensor lost: sums over its elements of the difference between the source and what
// its codes stand for, codebook[code] * scale in fp32, before any rounding to 16 bits.
//
// Every device gives the same bits, because the order is fixed. A tensor, or a range of one, is cut
// into chunks of 65536 elements, each summed into an ErrorSums of its own; whoever wants the whole
// adds those in order. A chunk has 8 pieces of 8192 elements. In a piece, lane i of 256 adds
// elements i, i + 256, i + 512, ... in turn; then neighbours are added, lanes 0 and 1, 2 and 3,
// ..., and of these sums neighbours again, until one is left. The pieces are added in turn. A
// difference is rounded to fp32, its square is exact in fp64, and sums are in fp64.

#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/bytes.h"

namespace nibble {

struct ErrorSums {
  double squared_error = 0;  // Of (source - decoded)^2; NaN or Inf if a difference is.
  double squared = 0;        // Of source^2
  float error_max = 0;       // The largest |source - decoded|; NaN is ignored.
  uint32_t padding = 0;      // So that all bytes are defined.

  ErrorSums& operator+=(const ErrorSums& other) {
    squared_error += other.squared_error;
    squared += other.squared;
    error_max = std::max(error_max, other.error_max);
    return *this;
  }
};
static_assert(sizeof(ErrorSums) == 24, "the host reads what devices write");

inline constexpr int64_t kErrorChunkElements = 65536;
inline constexpr int64_t kErrorPieceElements = 8192;
inline constexpr int64_t kErrorLanes = 256;
static_assert(kErrorPieceElements % kBlockSizeMax == 0, "blocks do not straddle pieces");

constexpr int64_t ErrorChunkCount(int64_t element_count) {
  return CeilDivide(element_count, kErrorChunkElements);
}

}  // namespace nibble
