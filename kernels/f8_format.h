// The 8-bit floats that weights arrive in, and how their scales lie: the one description that host
// code, device code and tests share.
//
//           sign  exponent  mantissa  bias   largest   all ones in the exponent
//   E4M3    1     4         3         7      448       finite, but for 0x7f and 0xff: NaN ("fn")
//   E5M2    1     5         2         15     57344     as IEEE: 0x7c and 0xfc infinite, above NaN
//
// A matrix [rows, columns] of them has a scale for each block of block_rows x block_columns:
//
//   scales  [ceil(rows / block_rows), ceil(columns / block_columns)], row-major
//   weight  = f8 * scale                     (one fp32 multiplication)
//
//   128 x 128        the weight_scale_inv of DeepSeek and Qwen; despite its name it multiplies
//   rows x columns   one scale a tensor
//   1 x columns      one scale a row
//
// Source: OCP 8-bit floating point specification (OFP8), 2023; transformers
// integrations/finegrained_fp8.py, whose weight_scale_inv is 1 / what the weights were multiplied
// by.

#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/bytes.h"

namespace nibble {

enum class F8Type { kE4M3, kE5M2 };

constexpr int MantissaBits(F8Type type) { return type == F8Type::kE4M3 ? 3 : 2; }
constexpr int ExponentBias(F8Type type) { return type == F8Type::kE4M3 ? 7 : 15; }

// Exact: fp32 holds every value of both. NaN is fp32's with all bits set but the sign.
constexpr float F8Value(F8Type type, uint8_t bits) {
  const uint32_t magnitude = bits & 0x7f;
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80) << 24;
  const int shift = 23 - MantissaBits(type);
  const bool is_nan = type == F8Type::kE4M3 ? magnitude == 0x7f : magnitude > 0x7c;
  if (is_nan) {
    return std::bit_cast<float>(0x7fffffffu);
  }
  if (type == F8Type::kE5M2 && magnitude == 0x7c) {
    return std::bit_cast<float>(sign | 0x7f800000u);
  }
  const auto bias_bits = static_cast<uint32_t>(127 - ExponentBias(type)) << 23;
  if (magnitude >> MantissaBits(type) == 0) {
    // A subnormal has the exponent of the smallest normal number, and no leading 1.
    const auto unit = std::bit_cast<float>(bias_bits + (1u << 23) -
                                           (static_cast<uint32_t>(MantissaBits(type)) << 23));
    const float value = static_cast<float>(magnitude) * unit;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << shift) + bias_bits));
}

// A range of a matrix, flattened row-major, and the scales that it needs: those of the block rows
// that it touches. The loader reads tiles, so ranges begin anywhere.
struct F8Range {
  F8Type type = F8Type::kE4M3;
  FloatType scale_type = FloatType::kF32;
  int64_t first_index = 0;    // Of the range within the matrix.
  int64_t element_count = 0;  // n
  int64_t columns = 0;        // Of the matrix, as the next two > 0.
  int64_t block_rows = 0;
  int64_t block_columns = 0;

  // Of all scales of the matrix, the rows that the range needs.
  constexpr int64_t first_scale_row() const { return first_index / columns / block_rows; }
  constexpr int64_t scale_row_count() const {
    return element_count == 0
               ? 0
               : (first_index + element_count - 1) / columns / block_rows - first_scale_row() + 1;
  }
  constexpr int64_t scale_columns() const { return CeilDivide(columns, block_columns); }
};

static_assert(F8Value(F8Type::kE4M3, 0x7e) == 448.0f && F8Value(F8Type::kE4M3, 0x81) == -0x1p-9f);
static_assert(F8Value(F8Type::kE5M2, 0x7b) == 57344.0f && F8Value(F8Type::kE5M2, 0x01) == 0x1p-16f);

}  // namespace nibble
