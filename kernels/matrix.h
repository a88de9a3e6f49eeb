// What the forward pass multiplies: weight matrices as they lie in the slab, and the activations of
// a step.
//
// Shape letters of these pages: M rows (tokens) of a step, N output features, K input features,
// H query heads, G key/value heads, D head size, E experts, V vocabulary.

#pragma once

#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/device.h"

namespace nibble {

enum class MatrixFormat { kF32, kF16, kBf16, kNf4, kFp4 };

constexpr bool IsFourBit(MatrixFormat format) {
  return format == MatrixFormat::kNf4 || format == MatrixFormat::kFp4;
}

// What all matrices of a stack (the experts of a layer) share.
struct MatrixShape {
  MatrixFormat format = MatrixFormat::kBf16;
  int64_t rows = 0;     // N
  int64_t columns = 0;  // K
  int64_t block_size = kBlockSizeDefault;
  bool double_quantized = false;

  int64_t element_count() const { return rows * columns; }

  friend bool operator==(const MatrixShape&, const MatrixShape&) = default;
};

// Where one matrix lies: addresses on the device, so that a table of them can lie there too. What
// the format has not is 0. The planes are those of block_format.h and scale_format.h, over the
// matrix flattened row-major: a row may begin in the middle of a block, and of a byte.
struct MatrixPlanes {
  uint64_t data = 0;          // Codes uint8 [(N K + 1) / 2], or elements [N, K].
  uint64_t scales = 0;        // fp32 [blocks], or uint8 [blocks] if double-quantized.
  uint64_t scale_maxima = 0;  // fp32 [ceil(blocks / 256)]
  uint64_t scale_mean = 0;    // fp32 [1]
  uint64_t scale_map = 0;     // fp32 [256]

  friend bool operator==(const MatrixPlanes&, const MatrixPlanes&) = default;
};
static_assert(sizeof(MatrixPlanes) == 40, "device code reads tables of them");

// How a matrix is multiplied with activations, which are fp32 on every path.
enum class Arithmetic {
  kFp32,  // Products and sums in fp32.
  kBf16,  // Where the device is faster so: both factors of a product are rounded to bf16 first
          // (each by at most 2^-8 of itself), sums are fp32. Weights that are F32 stay.
};

struct ProductOptions {
  Arithmetic arithmetic = Arithmetic::kFp32;

  // The order of sums depends on the matrix alone. Without it a kernel may be chosen by the bound
  // of rows, so that a row's last digits depend on what else is in the batch.
  bool batch_invariant = false;
};

struct Matrix {
  MatrixShape shape;
  MatrixPlanes planes;
};

// A vector of weights (a norm, a bias), [width] elements.
struct WeightVector {
  FloatType type = FloatType::kBf16;
  DeviceSpan span;  // Empty: there is none.
};

// fp32 numbers of a step, [rows, groups, width]: those of row r and group g begin r * row_stride +
// g * group_stride numbers into `span`. Most have one group; heads are groups.
struct Activations {
  DeviceSpan span;
  int64_t width = 0;
  int64_t row_stride = 0;
  int64_t groups = 1;
  int64_t group_stride = 0;

  friend bool operator==(const Activations&, const Activations&) = default;
};

// [rows, width], without gaps.
constexpr Activations DenseRows(DeviceSpan span, int64_t width) {
  return {span, width, width, 1, width};
}

// [rows, groups, width], without gaps.
constexpr Activations DenseGroups(DeviceSpan span, int64_t groups, int64_t width) {
  return {span, width, groups * width, groups, width};
}

// How many rows a step has. `bound` sizes the launch; the first `live` of them are computed, the
// others neither read nor written.
struct RowCount {
  int64_t bound = 0;
  DeviceSpan live;  // int32 [1], at most `bound`.

  friend bool operator==(const RowCount&, const RowCount&) = default;
};

}  // namespace nibble
