// fused_rows.h with AVX2.
//
// A run is 64 codes, 32 bytes. A code's value, rounded to bf16, is looked up by its two bytes
// (VPSHUFB), which are interleaved to words and widened to floats; activations lie in the order in
// which they come out: vector 4 e + 2 u + p has in lane i the element 2 b + e of byte
// b = 16 (i / 4) + 8 u + 2 (i % 4) + p.

#include "kernels/fused_rows.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace nibble::avx2 {
namespace {

constexpr int64_t kRun = 64;
constexpr int64_t kAheadBytes = 4096;  // As in fused_rows_avx512.cc.
constexpr int64_t kAheadScales = 128;

// The bytes of the codebook's values in bf16, in both halves.
struct ByteTables {
  __m256i low;
  __m256i high;

  explicit ByteTables(const float* codebook) {
    alignas(16) std::array<uint8_t, 16> lows;
    alignas(16) std::array<uint8_t, 16> highs;
    for (size_t code = 0; code < 16; ++code) {
      const auto bits = std::bit_cast<uint32_t>(codebook[code]);
      const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);  // To nearest even.
      lows[code] = static_cast<uint8_t>(rounded >> 16);
      highs[code] = static_cast<uint8_t>(rounded >> 24);
    }
    const auto* const low_address = reinterpret_cast<const __m128i*>(lows.data());
    const auto* const high_address = reinterpret_cast<const __m128i*>(highs.data());
    low = _mm256_broadcastsi128_si256(_mm_load_si128(low_address));
    high = _mm256_broadcastsi128_si256(_mm_load_si128(high_address));
  }
};

inline float AddLanes(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

inline __m256 ScalesOfRun(const FourBitRow& row, int block_shift, int64_t k, int64_t count) {
  const __m256 first = _mm256_broadcast_ss(row.scales + ((row.offset + k) >> block_shift));
  if (block_shift >= 6 || count <= kRun / 2) {
    return first;
  }
  return _mm256_blend_ps(first, _mm256_broadcast_ss(row.scales + k / 32 + 1), 0xf0);
}

// Adds the products of 16 words' values.
template <int kFirst, int64_t kRows>
inline void AddWords(__m256i words, const float* activations, int64_t width,
                     __m256 (&sums)[kRows]) {
  const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  const __m256 odd = _mm256_castsi256_ps(
      _mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  for (int64_t m = 0; m < kRows; ++m) {
    const float* const x = activations + m * width + 8 * kFirst;
    const __m256 product = kFirst == 0 ? _mm256_mul_ps(_mm256_load_ps(x), even)
                                       : _mm256_fmadd_ps(_mm256_load_ps(x), even, sums[m]);
    sums[m] = _mm256_fmadd_ps(_mm256_load_ps(x + 8), odd, product);
  }
}

template <int64_t kRows>
inline void AddRun(const FourBitProducts& p, const FourBitRow& row, const ByteTables& tables,
                   int64_t k, int64_t count, __m256 (&totals)[kRows]) {
  const auto* const begin = reinterpret_cast<const __m128i*>(row.codes + k / 2);
  __m256i codes;
  if (count == kRun) {
    _mm_prefetch(reinterpret_cast<const char*>(begin) + kAheadBytes, _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(row.scales + ((row.offset + k) >> p.block_shift) +
                                               kAheadScales),
                 _MM_HINT_T1);
    codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(begin));
  } else {
    codes = _mm256_zextsi128_si256(_mm_loadu_si128(begin));
  }
  const __m256i low_bits = _mm256_set1_epi8(15);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi16(codes, 4), low_bits);
  const __m256i odd = _mm256_and_si256(codes, low_bits);
  const float* const activations = p.prepared + k;
  __m256 sums[kRows];
  __m256i low = _mm256_shuffle_epi8(tables.low, even);
  __m256i high = _mm256_shuffle_epi8(tables.high, even);
  AddWords<0, kRows>(_mm256_unpacklo_epi8(low, high), activations, p.width, sums);
  AddWords<2, kRows>(_mm256_unpackhi_epi8(low, high), activations, p.width, sums);
  low = _mm256_shuffle_epi8(tables.low, odd);
  high = _mm256_shuffle_epi8(tables.high, odd);
  AddWords<4, kRows>(_mm256_unpacklo_epi8(low, high), activations, p.width, sums);
  AddWords<6, kRows>(_mm256_unpackhi_epi8(low, high), activations, p.width, sums);
  const __m256 scales = ScalesOfRun(row, p.block_shift, k, count);
  for (int64_t m = 0; m < kRows; ++m) {
    totals[m] = _mm256_fmadd_ps(sums[m], scales, totals[m]);
  }
}

template <int64_t kRows>
void MultiplyRowsOf(const FourBitProducts& p, const FourBitRow* rows, int64_t count,
                    float* const* targets, int64_t n) {
  const ByteTables tables(p.codebook);
  for (int64_t c = 0; c < count; ++c) {
    __m256 totals[kRows];
    for (int64_t m = 0; m < kRows; ++m) {
      totals[m] = _mm256_setzero_ps();
    }
    int64_t k = 0;
    for (; k + kRun <= p.columns; k += kRun) {
      AddRun<kRows>(p, rows[c], tables, k, kRun, totals);
    }
    if (k < p.columns) {
      AddRun<kRows>(p, rows[c], tables, k, p.columns - k, totals);
    }
    for (int64_t m = 0; m < kRows; ++m) {
      targets[m][n + c] = AddLanes(totals[m]);
    }
  }
}

// Eight elements from `index` on; of them `count` are there.
template <MatrixFormat kFormat>
inline __m256 LoadWide(uint64_t data, int64_t index, int64_t count) {
  using Element = std::conditional_t<kFormat == MatrixFormat::kF32, float, uint16_t>;
  const Element* elements = std::bit_cast<const Element*>(data) + index;
  alignas(32) std::array<Element, 8> some = {};
  if (count < 8) {
    std::copy_n(elements, count, some.begin());
    elements = some.data();
  }
  if constexpr (kFormat == MatrixFormat::kF32) {
    return _mm256_loadu_ps(elements);
  } else {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(elements));
    if constexpr (kFormat == MatrixFormat::kF16) {
      return _mm256_cvtph_ps(bits);
    } else {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
  }
}

// Two partial vectors of each sum, of every k with the same remainder by 16.
template <MatrixFormat kFormat, int64_t kRows>
void MultiplyWideRow(uint64_t data, int64_t begin, int64_t columns, const float* prepared,
                     int64_t width, float* const* targets, int64_t n) {
  constexpr int64_t kElementBytes = kFormat == MatrixFormat::kF32 ? 4 : 2;
  __m256 even[kRows];
  __m256 odd[kRows];
  for (int64_t m = 0; m < kRows; ++m) {
    even[m] = _mm256_setzero_ps();
    odd[m] = _mm256_setzero_ps();
  }
  int64_t k = 0;
  for (; k + 16 <= columns; k += 16) {
    const auto* const ahead = std::bit_cast<const char*>(data) + (begin + k) * kElementBytes;
    _mm_prefetch(ahead + kAheadBytes, _MM_HINT_T1);
    const __m256 first = LoadWide<kFormat>(data, begin + k, 8);
    const __m256 second = LoadWide<kFormat>(data, begin + k + 8, 8);
    for (int64_t m = 0; m < kRows; ++m) {
      const float* const x = prepared + m * width + k;
      even[m] = _mm256_fmadd_ps(_mm256_load_ps(x), first, even[m]);
      odd[m] = _mm256_fmadd_ps(_mm256_load_ps(x + 8), second, odd[m]);
    }
  }
  for (; k < columns; k += 8) {
    const __m256 some = LoadWide<kFormat>(data, begin + k, std::min(columns - k, int64_t{8}));
    for (int64_t m = 0; m < kRows; ++m) {
      even[m] = _mm256_fmadd_ps(_mm256_load_ps(prepared + m * width + k), some, even[m]);
    }
  }
  for (int64_t m = 0; m < kRows; ++m) {
    targets[m][n] = AddLanes(_mm256_add_ps(even[m], odd[m]));
  }
}

template <MatrixFormat kFormat>
void MultiplyWideRows(const Matrix& matrix, const float* prepared, int64_t width,
                      float* const* targets, int64_t row_count, int64_t first, int64_t last) {
  constexpr std::array kKernels = {&MultiplyWideRow<kFormat, 1>, &MultiplyWideRow<kFormat, 2>,
                                   &MultiplyWideRow<kFormat, 3>, &MultiplyWideRow<kFormat, 4>};
  const int64_t columns = matrix.shape.columns;
  for (int64_t n = first; n < last; ++n) {
    kKernels[static_cast<size_t>(row_count - 1)](matrix.planes.data, n * columns, columns, prepared,
                                                 width, targets, n);
  }
}

}  // namespace

void PrepareFourBitRow(const float* source, int64_t columns, float* prepared) {
  const __m256i lanes = _mm256_setr_epi32(0, 4, 8, 12, 32, 36, 40, 44);
  for (int64_t k = 0; k < columns; k += kRun) {
    const bool whole = k + kRun <= columns;
    const __m256 present = _mm256_castsi256_ps(
        whole ? _mm256_set1_epi32(-1) : _mm256_setr_epi32(-1, -1, -1, -1, 0, 0, 0, 0));
    for (int vector = 0; vector < 8; ++vector) {
      const int first = vector / 4 + 16 * (vector / 2 % 2) + 2 * (vector % 2);
      _mm256_store_ps(
          prepared + k + 8 * vector,
          _mm256_mask_i32gather_ps(_mm256_setzero_ps(), source + k + first, lanes, present, 4));
    }
  }
}

void MultiplyFourBit(const FourBitProducts& products, const FourBitRow* rows, int64_t count,
                     float* const* targets, int64_t n) {
  constexpr std::array kKernels = {&MultiplyRowsOf<1>, &MultiplyRowsOf<2>, &MultiplyRowsOf<3>,
                                   &MultiplyRowsOf<4>};
  kKernels[static_cast<size_t>(products.row_count - 1)](products, rows, count, targets, n);
}

void MultiplyWide(const Matrix& matrix, const float* prepared, int64_t width, float* const* targets,
                  int64_t row_count, int64_t first, int64_t last) {
  const MatrixFormat format = matrix.shape.format;
  const auto multiply = format == MatrixFormat::kF32   ? &MultiplyWideRows<MatrixFormat::kF32>
                        : format == MatrixFormat::kF16 ? &MultiplyWideRows<MatrixFormat::kF16>
                                                       : &MultiplyWideRows<MatrixFormat::kBf16>;
  multiply(matrix, prepared, width, targets, row_count, first, last);
}

}  // namespace nibble::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
