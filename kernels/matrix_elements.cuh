// Eight elements of a row of a weight matrix in a thread's registers, in fp32: what every kernel
// that multiplies reads. In 4 bits that is a word of codes.

#pragma once

#include <cstdint>

#include "kernels/elements.cuh"
#include "kernels/matrix.h"
#include "kernels/primitives.cuh"
#include "kernels/scale_format.h"
#include "kernels/step_rows.cuh"

namespace nibble {

// How a kernel reads elements. NF4 and FP4 differ by a table that is passed to it.
enum class ElementKind { kF32, kF16, kBf16, kFourBit };

inline ElementKind ElementKindOf(MatrixFormat format) {
  switch (format) {
    case MatrixFormat::kF32:
      return ElementKind::kF32;
    case MatrixFormat::kF16:
      return ElementKind::kF16;
    case MatrixFormat::kBf16:
      return ElementKind::kBf16;
    default:
      return ElementKind::kFourBit;
  }
}

constexpr FloatType FloatTypeOf(ElementKind kind) {
  return kind == ElementKind::kF16    ? FloatType::kF16
         : kind == ElementKind::kBf16 ? FloatType::kBf16
                                      : FloatType::kF32;
}

// What a kernel knows of a matrix besides its planes.
struct MatrixForm {
  int64_t columns;  // K
  int64_t rows;     // N
  int block_shift;  // log2(block_size)
  bool double_quantized;
  CodeTable table;
};

inline MatrixForm MatrixFormOf(const MatrixShape& shape) {
  MatrixForm form = {};
  form.columns = shape.columns;
  form.rows = shape.rows;
  if (IsFourBit(shape.format)) {
    form.block_shift = BlockShift(static_cast<int>(shape.block_size));
    form.double_quantized = shape.double_quantized;
    form.table = CodeTableOf(shape.format == MatrixFormat::kNf4 ? Codebook::kNf4 : Codebook::kFp4);
  }
  return form;
}

// Whether eight elements from a multiple of eight on in every row lie where one wide load reads
// them, and within one block.
inline bool HasWideRows(const MatrixShape& shape, uint64_t data) {
  return shape.columns % kVectorElements == 0 && IsAligned(data, IsFourBit(shape.format) ? 4 : 16);
}

// Copies the codebook to shared memory, where 16 words lie in 16 banks.
__device__ __forceinline__ void LoadTable(const MatrixForm& form, float* table) {  // [16]
  if (threadIdx.x < kCodeValues) {
    table[threadIdx.x] = form.table.values[threadIdx.x];
  }
}

// The scale of a block, with the two roundings of scale_format.h.
__device__ __forceinline__ float BlockScale(const MatrixForm& form, const MatrixPlanes& planes,
                                            int64_t block) {
  if (!form.double_quantized) {
    return reinterpret_cast<const float*>(planes.scales)[block];
  }
  const uint8_t code = reinterpret_cast<const uint8_t*>(planes.scales)[block];
  const float value = reinterpret_cast<const float*>(planes.scale_map)[code];
  const float largest =
      reinterpret_cast<const float*>(planes.scale_maxima)[block / kScaleBlockSize];
  const float mean = *reinterpret_cast<const float*>(planes.scale_mean);
  return __fadd_rn(MultiplyFlushed(value, largest), mean);
}

template <ElementKind kKind>
__device__ __forceinline__ float MatrixElement(const MatrixForm& form, const MatrixPlanes& planes,
                                               const float* table, int64_t index) {
  if constexpr (kKind == ElementKind::kFourBit) {
    const uint8_t pair = reinterpret_cast<const uint8_t*>(planes.data)[index / 2];
    const int code = index % 2 == 0 ? pair >> 4 : pair & 15;
    return MultiplyFlushed(table[code], BlockScale(form, planes, index >> form.block_shift));
  } else {
    using Type = Element<FloatTypeOf(kKind)>;
    return Type::Widen(reinterpret_cast<const typename Type::Storage*>(planes.data)[index]);
  }
}

// Elements k to k + 7 of row n; 0 beyond the last column, and beyond the last row.
//
// Requires: k is a multiple of 8; if kWide, HasWideRows().
template <ElementKind kKind, bool kWide>
__device__ __forceinline__ void LoadRowVector(const MatrixForm& form, const MatrixPlanes& planes,
                                              const float* table, int64_t n, int64_t k,
                                              float (&values)[kVectorElements]) {
  const int64_t remaining = n < form.rows ? form.columns - k : 0;
  const int64_t index = n * form.columns + k;
  if constexpr (!kWide) {
#pragma unroll
    for (int i = 0; i < kVectorElements; ++i) {
      values[i] = i < remaining ? MatrixElement<kKind>(form, planes, table, index + i) : 0.0f;
    }
  } else if (remaining <= 0) {
#pragma unroll
    for (int i = 0; i < kVectorElements; ++i) {
      values[i] = 0.0f;
    }
  } else if constexpr (kKind == ElementKind::kFourBit) {
    const auto* const words = reinterpret_cast<const uint32_t*>(planes.data);
    const uint32_t codes = __ldg(words + index / kVectorElements);
    const float scale = BlockScale(form, planes, index >> form.block_shift);
#pragma unroll
    for (int i = 0; i < kVectorElements; ++i) {
      values[i] = MultiplyFlushed(table[codes >> (4 * (i ^ 1)) & 15], scale);
    }
  } else {
    constexpr FloatType kType = FloatTypeOf(kKind);
    using Storage = typename Element<kType>::Storage;
    LoadVector<kType, true>(reinterpret_cast<const Storage*>(planes.data) + index, kVectorElements,
                            values);
  }
}

}  // namespace nibble
