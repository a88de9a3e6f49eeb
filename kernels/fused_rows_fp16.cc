// fused_rows.h with AVX-512 and its half-precision arithmetic, for 4 bits.
//
// A run is 128 codes, 64 bytes, 32 words of 4 nibbles. Nibble j of each word, shifted to the
// bottom, looks up a table of 16 values, twice in it (VPERMW ignores the bits above five), and
// activations lie in the order of these lookups: lane i of vector j is element 4 i + (j ^ 1). A sum
// of four products stays in half precision, 32 of them at once; what is added to it is fp32.
//
// Activations of a row are scaled by a power of two so that the largest lies in [2^9, 2^10): four
// products with values of at most 1 do not overflow, and what is below 2^-24 of the largest loses
// digits that the sum would lose too. Error: an activation, a value, a product and three sums are
// rounded by at most 2^-11 each: 6 * 2^-11 of the magnitudes, less than half of what bf16 loses.

#include "kernels/fused_rows.h"

// Before 15, clang has half-precision vectors only in files that are compiled for them altogether.
#if defined(__x86_64__) && (!defined(__clang__) || __clang_major__ >= 15)
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512fp16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512fp16")
#endif

namespace nibble::fp16 {
namespace {

constexpr int64_t kRun = 128;
constexpr int64_t kAheadBytes = 4096;  // As in fused_rows_avx512.cc.
constexpr int64_t kAheadScales = 128;
constexpr int kLargestExponent = 9;

// Scales for the halves of a run, by lanes of fp32. With blocks of 32 a lane's is the half's of its
// place.
struct RunScales {
  __m512 low;
  __m512 high;
};

inline __m512 TwoScales(const float* first, const float* second) {
  return _mm512_mask_broadcastss_ps(_mm512_set1_ps(*first), 0xff00, _mm_load_ss(second));
}

template <bool kSmallBlocks>
inline RunScales ScalesOfRun(const FourBitRow& row, int block_shift, int64_t k, int64_t count) {
  if constexpr (kSmallBlocks) {
    const float* const scales = row.scales + k / 32;
    const int64_t last = count / 32 - 1;
    const auto at = [&](int64_t place) { return scales + std::min(place, last); };
    return {TwoScales(at(0), at(1)), TwoScales(at(2), at(3))};
  } else {
    const int64_t begin = row.offset + k;
    const int64_t middle = count > kRun / 2 ? begin + kRun / 2 : begin;
    return {_mm512_set1_ps(row.scales[begin >> block_shift]),
            _mm512_set1_ps(row.scales[middle >> block_shift])};
  }
}

template <int kNibble, int64_t kRows, int64_t kColumns>
inline void AddNibble(const __m512i (&codes)[kColumns], __m512i table, const uint16_t* activations,
                      int64_t width, __m512h (&sums)[kRows][kColumns]) {
  __m512h values[kColumns];
  for (int64_t c = 0; c < kColumns; ++c) {
    values[c] = _mm512_castsi512_ph(
        _mm512_permutexvar_epi16(_mm512_srli_epi16(codes[c], 4 * kNibble), table));
  }
  for (int64_t m = 0; m < kRows; ++m) {
    const __m512h x = _mm512_load_ph(activations + m * width + 32 * kNibble);
    for (int64_t c = 0; c < kColumns; ++c) {
      sums[m][c] =
          kNibble == 0 ? _mm512_mul_ph(x, values[c]) : _mm512_fmadd_ph(x, values[c], sums[m][c]);
    }
  }
}

template <int64_t kRows, int64_t kColumns, bool kSmallBlocks>
inline void AddRun(const FourBitProducts& p, const FourBitRow* rows, __m512i table, int64_t k,
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
  // A row of activations has 16 bits for each number, and as wide a row as one of floats.
  const auto* const activations = reinterpret_cast<const uint16_t*>(p.prepared) + k;
  const int64_t width = 2 * p.width;
  __m512h sums[kRows][kColumns];
  AddNibble<0, kRows, kColumns>(codes, table, activations, width, sums);
  AddNibble<1, kRows, kColumns>(codes, table, activations, width, sums);
  AddNibble<2, kRows, kColumns>(codes, table, activations, width, sums);
  AddNibble<3, kRows, kColumns>(codes, table, activations, width, sums);
  for (int64_t c = 0; c < kColumns; ++c) {
    const RunScales scales = ScalesOfRun<kSmallBlocks>(rows[c], p.block_shift, k, count);
    for (int64_t m = 0; m < kRows; ++m) {
      const __m512i bits = _mm512_castph_si512(sums[m][c]);
      const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(bits));
      const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1));
      totals[m][c] = _mm512_fmadd_ps(low, scales.low, totals[m][c]);
      totals[m][c] = _mm512_fmadd_ps(high, scales.high, totals[m][c]);
    }
  }
}

template <int64_t kRows, int64_t kColumns, bool kSmallBlocks>
void MultiplyTile(const FourBitProducts& p, const FourBitRow* rows, float* const* targets,
                  int64_t n) {
  const __m256i half = _mm512_cvtps_ph(_mm512_loadu_ps(p.codebook), _MM_FROUND_TO_NEAREST_INT);
  const __m512i table = _mm512_broadcast_i64x4(half);
  __m512 totals[kRows][kColumns];
  for (int64_t m = 0; m < kRows; ++m) {
    for (int64_t c = 0; c < kColumns; ++c) {
      totals[m][c] = _mm512_setzero_ps();
    }
  }
  int64_t k = 0;
  for (; k + kRun <= p.columns; k += kRun) {
    AddRun<kRows, kColumns, kSmallBlocks>(p, rows, table, k, kRun, totals);
  }
  if (k < p.columns) {
    AddRun<kRows, kColumns, kSmallBlocks>(p, rows, table, k, p.columns - k, totals);
  }
  for (int64_t m = 0; m < kRows; ++m) {
    // What undoes the scaling lies behind the row's numbers.
    const float factor = p.prepared[m * p.width + p.width / 2];
    for (int64_t c = 0; c < kColumns; ++c) {
      targets[m][n + c] = _mm512_reduce_add_ps(totals[m][c]) * factor;
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

float LargestMagnitude(const float* source, int64_t columns) {
  const __m512 magnitudes = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
  __m512 largest = _mm512_setzero_ps();
  for (int64_t k = 0; k < columns; k += 16) {
    const int64_t count = std::min(columns - k, int64_t{16});
    const auto present = static_cast<__mmask16>((1u << count) - 1);
    const __m512 x = _mm512_maskz_loadu_ps(present, source + k);
    largest = _mm512_max_ps(largest, _mm512_and_ps(x, magnitudes));
  }
  return _mm512_reduce_max_ps(largest);
}

}  // namespace

bool IsCompiled() { return true; }

void PrepareFourBitRow(const float* source, int64_t columns, int64_t width, float* prepared) {
  const float largest = LargestMagnitude(source, columns);
  // Infinities stay what they are, and of the smallest numbers as many digits as there are.
  const bool ordinary = largest > 0 && std::isfinite(largest);
  const int exponent = ordinary ? std::clamp(kLargestExponent - std::ilogb(largest), -126, 126) : 0;
  prepared[width / 2] = std::ldexp(1.0f, -exponent);
  const __m512 scale = _mm512_set1_ps(std::ldexp(1.0f, exponent));
  const __m512i fourths =
      _mm512_slli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 2);
  auto* const halves = reinterpret_cast<uint16_t*>(prepared);
  for (int64_t k = 0; k < columns; k += kRun) {
    const int64_t count = std::min(columns - k, kRun);
    const auto present = static_cast<uint32_t>((uint64_t{1} << (count / 4)) - 1);
    for (int part = 0; part < 8; ++part) {
      const int nibble = part / 2;
      const int lane = part % 2 * 16;
      const __m512 x =
          _mm512_mask_i32gather_ps(_mm512_setzero_ps(), static_cast<__mmask16>(present >> lane),
                                   fourths, source + k + 4 * lane + (nibble ^ 1), 4);
      _mm256_store_si256(reinterpret_cast<__m256i*>(halves + k + 32 * nibble + lane),
                         _mm512_cvtps_ph(_mm512_mul_ps(x, scale), _MM_FROUND_TO_NEAREST_INT));
    }
  }
}

void MultiplyFourBit(const FourBitProducts& products, const FourBitRow* rows, int64_t count,
                     float* const* targets, int64_t n) {
  constexpr std::array kKernels = {&MultiplyRowsOf<1>, &MultiplyRowsOf<2>, &MultiplyRowsOf<3>,
                                   &MultiplyRowsOf<4>};
  kKernels[static_cast<size_t>(products.row_count - 1)](products, rows, count, targets, n);
}

}  // namespace nibble::fp16

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else

namespace nibble::fp16 {
bool IsCompiled() { return false; }
void PrepareFourBitRow(const float*, int64_t, int64_t, float*) {}
void MultiplyFourBit(const FourBitProducts&, const FourBitRow*, int64_t, float* const*, int64_t) {}
}  // namespace nibble::fp16

#endif
