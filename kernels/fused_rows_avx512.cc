// fused_rows.h with AVX-512.
//
// A run is 128 codes, 64 bytes, 16 lanes of 8 nibbles. Nibble j of each lane, shifted to the
// bottom, looks up a table of 16 floats (VPERMPS ignores the bits above), and activations lie in
// the order of these lookups: lane i of vector j is element 8 i + (j ^ 1), as the even element is
// in the high nibble. So a run is 8 lookups, 7 shifts and, for each row of activations, 8 products.

#include "kernels/fused_rows.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

namespace nibble::avx512 {
namespace {

constexpr int64_t kRun = 128;

// Read ahead of the codes, which the processor's own prefetching does too late: 4 KiB ahead into
// the second-level cache carried 15.7 GB/s on one core of a Xeon where nothing carried 9.
constexpr int64_t kAheadBytes = 4096;
constexpr int64_t kAheadScales = 128;  // As far, in blocks of 64.

// A scale for each lane of the run that begins at `k`. With blocks of 32 a lane's is the fourth of
// its place, else the half's.
template <bool kSmallBlocks>
inline __m512 ScalesOfRun(const FourBitRow& row, int block_shift, int64_t k, int64_t count) {
  if constexpr (kSmallBlocks) {
    const __m512i quarters = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const auto present = static_cast<__mmask8>((1u << (count / 32)) - 1);
    const __m128 scales = _mm_maskz_loadu_ps(present, row.scales + k / 32);
    return _mm512_permutexvar_ps(quarters, _mm512_castps128_ps512(scales));
  } else {
    const int64_t begin = row.offset + k;
    const int64_t middle = count > kRun / 2 ? begin + kRun / 2 : begin;
    return _mm512_mask_broadcastss_ps(_mm512_set1_ps(row.scales[begin >> block_shift]), 0xff00,
                                      _mm_load_ss(row.scales + (middle >> block_shift)));
  }
}

template <int kNibble, int64_t kRows, int64_t kColumns>
inline void AddNibble(const __m512i (&codes)[kColumns], __m512 codebook, const float* activations,
                      int64_t width, __m512 (&sums)[kRows][kColumns]) {
  __m512 values[kColumns];
  for (int64_t c = 0; c < kColumns; ++c) {
    values[c] = _mm512_permutexvar_ps(_mm512_srli_epi32(codes[c], 4 * kNibble), codebook);
  }
  for (int64_t m = 0; m < kRows; ++m) {
    const __m512 x = _mm512_load_ps(activations + m * width + 16 * kNibble);
    for (int64_t c = 0; c < kColumns; ++c) {
      sums[m][c] =
          kNibble < 2 ? _mm512_mul_ps(x, values[c]) : _mm512_fmadd_ps(x, values[c], sums[m][c]);
    }
  }
}

template <int64_t kRows, int64_t kColumns, bool kSmallBlocks>
inline void AddRun(const FourBitProducts& p, const FourBitRow* rows, __m512 codebook, int64_t k,
                   int64_t count, __m512 (&totals)[kRows][kColumns]) {
  __m512i codes[kColumns];
  for (int64_t c = 0; c < kColumns; ++c) {
    const uint8_t* const begin = rows[c].codes + k / 2;
    if (count == kRun) {
      _mm_prefetch(reinterpret_cast<const char*>(begin) + kAheadBytes, _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(
                       rows[c].scales + ((rows[c].offset + k) >> p.block_shift) + kAheadScales),
                   _MM_HINT_T1);
      codes[c] = _mm512_loadu_si512(begin);
    } else {
      const auto present = static_cast<__mmask16>((1u << (count / 8)) - 1);
      codes[c] = _mm512_maskz_loadu_epi32(present, begin);
    }
  }
  const float* const activations = p.prepared + k;
  __m512 even[kRows][kColumns];
  __m512 odd[kRows][kColumns];
  AddNibble<0, kRows, kColumns>(codes, codebook, activations, p.width, even);
  AddNibble<1, kRows, kColumns>(codes, codebook, activations, p.width, odd);
  AddNibble<2, kRows, kColumns>(codes, codebook, activations, p.width, even);
  AddNibble<3, kRows, kColumns>(codes, codebook, activations, p.width, odd);
  AddNibble<4, kRows, kColumns>(codes, codebook, activations, p.width, even);
  AddNibble<5, kRows, kColumns>(codes, codebook, activations, p.width, odd);
  AddNibble<6, kRows, kColumns>(codes, codebook, activations, p.width, even);
  AddNibble<7, kRows, kColumns>(codes, codebook, activations, p.width, odd);
  for (int64_t c = 0; c < kColumns; ++c) {
    const __m512 scales = ScalesOfRun<kSmallBlocks>(rows[c], p.block_shift, k, count);
    for (int64_t m = 0; m < kRows; ++m) {
      totals[m][c] = _mm512_fmadd_ps(_mm512_add_ps(even[m][c], odd[m][c]), scales, totals[m][c]);
    }
  }
}

template <int64_t kRows, int64_t kColumns, bool kSmallBlocks>
void MultiplyTile(const FourBitProducts& p, const FourBitRow* rows, float* const* targets,
                  int64_t n) {
  const __m512 codebook = _mm512_loadu_ps(p.codebook);
  __m512 totals[kRows][kColumns];
  for (int64_t m = 0; m < kRows; ++m) {
    for (int64_t c = 0; c < kColumns; ++c) {
      totals[m][c] = _mm512_setzero_ps();
    }
  }
  int64_t k = 0;
  for (; k + kRun <= p.columns; k += kRun) {
    AddRun<kRows, kColumns, kSmallBlocks>(p, rows, codebook, k, kRun, totals);
  }
  if (k < p.columns) {
    AddRun<kRows, kColumns, kSmallBlocks>(p, rows, codebook, k, p.columns - k, totals);
  }
  for (int64_t m = 0; m < kRows; ++m) {
    for (int64_t c = 0; c < kColumns; ++c) {
      targets[m][n + c] = _mm512_reduce_add_ps(totals[m][c]);
    }
  }
}

template <int64_t kRows>
void MultiplyRowsOf(const FourBitProducts& p, const FourBitRow* rows, int64_t count,
                    float* const* targets, int64_t n) {
  const bool small_blocks = (int64_t{1} << p.block_shift) < kRun / 2;
  int64_t c = 0;
  for (; c + 2 <= count; c += 2) {
    if (small_blocks) {
      MultiplyTile<kRows, 2, true>(p, rows + c, targets, n + c);
    } else {
      MultiplyTile<kRows, 2, false>(p, rows + c, targets, n + c);
    }
  }
  if (c < count) {
    if (small_blocks) {
      MultiplyTile<kRows, 1, true>(p, rows + c, targets, n + c);
    } else {
      MultiplyTile<kRows, 1, false>(p, rows + c, targets, n + c);
    }
  }
}

template <MatrixFormat kFormat>
inline __m512 LoadWide(uint64_t data, int64_t index, __mmask16 present) {
  if constexpr (kFormat == MatrixFormat::kF32) {
    return _mm512_maskz_loadu_ps(present, std::bit_cast<const float*>(data) + index);
  } else {
    const auto* const words = std::bit_cast<const uint16_t*>(data) + index;
    const __m256i bits = _mm256_maskz_loadu_epi16(present, words);
    if constexpr (kFormat == MatrixFormat::kF16) {
      return _mm512_cvtph_ps(bits);
    } else {
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    }
  }
}

// Four partial vectors of each sum, of every k with the same remainder by 64.
template <MatrixFormat kFormat, int64_t kRows>
void MultiplyWideRow(uint64_t data, int64_t begin, int64_t columns, const float* prepared,
                     int64_t width, float* const* targets, int64_t n) {
  constexpr int kParts = 4;
  constexpr int64_t kElementBytes = kFormat == MatrixFormat::kF32 ? 4 : 2;
  __m512 sums[kRows][kParts];
  for (int64_t m = 0; m < kRows; ++m) {
    for (int part = 0; part < kParts; ++part) {
      sums[m][part] = _mm512_setzero_ps();
    }
  }
  const auto add = [&](int64_t k, int part, __mmask16 present) __attribute__((always_inline)) {
    const __m512 w = LoadWide<kFormat>(data, begin + k, present);
    for (int64_t m = 0; m < kRows; ++m) {
      sums[m][part] = _mm512_fmadd_ps(_mm512_load_ps(prepared + m * width + k), w, sums[m][part]);
    }
  };
  int64_t k = 0;
  for (; k + 16 * kParts <= columns; k += 16 * kParts) {
    const auto* const ahead = std::bit_cast<const char*>(data) + (begin + k) * kElementBytes;
    _mm_prefetch(ahead + kAheadBytes, _MM_HINT_T1);
    _mm_prefetch(ahead + kAheadBytes + 64, _MM_HINT_T1);
    add(k, 0, 0xffff);
    add(k + 16, 1, 0xffff);
    add(k + 32, 2, 0xffff);
    add(k + 48, 3, 0xffff);
  }
  for (; k < columns; k += 16) {
    const int64_t count = std::min(columns - k, int64_t{16});
    const __m512 w = LoadWide<kFormat>(data, begin + k, static_cast<__mmask16>((1u << count) - 1));
    for (int64_t m = 0; m < kRows; ++m) {
      sums[m][0] = _mm512_fmadd_ps(_mm512_load_ps(prepared + m * width + k), w, sums[m][0]);
    }
  }
  for (int64_t m = 0; m < kRows; ++m) {
    targets[m][n] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[m][0], sums[m][1]),
                                                       _mm512_add_ps(sums[m][2], sums[m][3])));
  }
}

template <MatrixFormat kFormat>
void MultiplyWideRows(const Matrix& matrix, const float* prepared, int64_t width,
                      float* const* targets, int64_t row_count, int64_t first, int64_t last) {
  constexpr auto kKernels = std::array{&MultiplyWideRow<kFormat, 1>, &MultiplyWideRow<kFormat, 2>,
                                       &MultiplyWideRow<kFormat, 3>, &MultiplyWideRow<kFormat, 4>};
  const int64_t columns = matrix.shape.columns;
  for (int64_t n = first; n < last; ++n) {
    kKernels[static_cast<size_t>(row_count - 1)](matrix.planes.data, n * columns, columns, prepared,
                                                 width, targets, n);
  }
}

}  // namespace

void PrepareFourBitRow(const float* source, int64_t columns, float* prepared) {
  const __m512i eighths =
      _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(8));
  for (int64_t k = 0; k < columns; k += kRun) {
    const int64_t count = std::min(columns - k, kRun);
    const auto present = static_cast<__mmask16>((1u << (count / 8)) - 1);
    for (int nibble = 0; nibble < 8; ++nibble) {
      _mm512_store_ps(prepared + k + 16 * nibble,
                      _mm512_mask_i32gather_ps(_mm512_setzero_ps(), present, eighths,
                                               source + k + (nibble ^ 1), 4));
    }
  }
}

void MultiplyFourBit(const FourBitProducts& products, const FourBitRow* rows, int64_t count,
                     float* const* targets, int64_t n) {
  constexpr auto kKernels =
      std::array{&MultiplyRowsOf<1>, &MultiplyRowsOf<2>, &MultiplyRowsOf<3>, &MultiplyRowsOf<4>};
  kKernels[static_cast<size_t>(products.row_count - 1)](products, rows, count, targets, n);
}

void MultiplyWide(const Matrix& matrix, const float* prepared, int64_t width, float* const* targets,
                  int64_t row_count, int64_t first, int64_t last) {
  const auto multiply =
      matrix.shape.format == MatrixFormat::kF32   ? &MultiplyWideRows<MatrixFormat::kF32>
      : matrix.shape.format == MatrixFormat::kF16 ? &MultiplyWideRows<MatrixFormat::kF16>
                                                  : &MultiplyWideRows<MatrixFormat::kBf16>;
  multiply(matrix, prepared, width, targets, row_count, first, last);
}

}  // namespace nibble::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
