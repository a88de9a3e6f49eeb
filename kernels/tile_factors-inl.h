// The factors of tile products: numbers rounded to bf16, tiles of activations, and panels of a
// matrix. Included by tile_products.cc for its instructions, after everything that this needs.

#pragma once

namespace nibble {
namespace {

// Whether blocks of the matrix are looked up, 64 elements at a time.
bool IsLookedUp(const MatrixShape& shape) {
  return IsFourBit(shape.format) && shape.columns % 64 == 0 && shape.block_size >= 64;
}

// Transposes 16 x 16 32-bit numbers.
inline void Transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (size_t i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (size_t i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (size_t i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
  }
  for (size_t i = 0; i < 4; ++i) {
    v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    v[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    v[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

inline __m512i Round32(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// 32 numbers from source + k, rounded to bf16, those from `count` on zeros.
inline __m512i Round(const float* source, int64_t k, int64_t count) {
  const uint32_t present = count - k >= 32 ? ~0u : (1u << (count - k)) - 1;
  return Round32(_mm512_maskz_loadu_ps(static_cast<__mmask16>(present), source + k),
                 _mm512_maskz_loadu_ps(static_cast<__mmask16>(present >> 16), source + k + 16));
}

// The even and the odd ones of 64 numbers, rounded to bf16.
struct RoundedHalves {
  __m512i even;
  __m512i odd;

  explicit RoundedHalves(const float* source) {
    const __m512i evens =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
    const __m512 v0 = _mm512_loadu_ps(source);
    const __m512 v1 = _mm512_loadu_ps(source + 16);
    const __m512 v2 = _mm512_loadu_ps(source + 32);
    const __m512 v3 = _mm512_loadu_ps(source + 48);
    even = Round32(_mm512_permutex2var_ps(v0, evens, v1), _mm512_permutex2var_ps(v2, evens, v3));
    odd = Round32(_mm512_permutex2var_ps(v0, odds, v1), _mm512_permutex2var_ps(v2, odds, v3));
  }
};

// Stores 16 rows' 32 numbers as a tile: pairs of k by rows.
inline void StoreTile(__m512i (&rows)[16], uint16_t* tile) {
  Transpose(rows);
  for (size_t i = 0; i < 16; ++i) {
    _mm512_store_si512(tile + 32 * i, rows[i]);
  }
}

// Expands pieces of a matrix into a panel.
class PanelReader {
 public:
  explicit PanelReader(const Matrix& matrix)
      : matrix_(matrix),
        codebook_(_mm512_loadu_ps(
            (matrix.shape.format == MatrixFormat::kFp4 ? kFp4Values : kNf4Values).data())),
        shift_(std::countr_zero(static_cast<uint64_t>(matrix.shape.block_size))) {}

  // Elements [k, k + count) of row n; count is a multiple of kTileColumns with zeros behind the
  // row's end.
  void Read(int64_t n, int64_t k, int64_t count, uint16_t* target) {
    const MatrixShape& shape = matrix_.shape;
    const int64_t begin = n * shape.columns + k;
    if (IsLookedUp(shape)) {
      LookUp(begin, count, target);
      return;
    }
    const int64_t present = std::min(count, shape.columns - k);
    if (shape.format == MatrixFormat::kBf16) {
      const auto* const source = std::bit_cast<const uint16_t*>(matrix_.planes.data) + begin;
      std::copy_n(source, present, target);
      std::fill(target + present, target + count, uint16_t{0});
      return;
    }
    expanded_.resize(static_cast<size_t>(count));
    ReadElements(matrix_, begin, present, expanded_.data());
    for (int64_t i = 0; i < count; i += kTileColumns) {
      _mm512_store_si512(target + i, Round(expanded_.data(), i, present));
    }
  }

 private:
  void LookUp(int64_t begin, int64_t count, uint16_t* target) {
    const auto* const codes = std::bit_cast<const uint8_t*>(matrix_.planes.data) + begin / 2;
    const int64_t first_block = begin >> shift_;
    const float* scales = std::bit_cast<const float*>(matrix_.planes.scales) + first_block;
    if (matrix_.shape.double_quantized) {
      const int64_t blocks = ((begin + count - 1) >> shift_) + 1 - first_block;
      expanded_.resize(static_cast<size_t>(blocks));
      ReadScales(matrix_, first_block, blocks, expanded_.data());
      scales = expanded_.data();
    }
    // The panel after this one, at the same place.
    const int64_t ahead_bytes = kPanelRows * matrix_.shape.columns / 2;
    for (int64_t i = 0; i < count; i += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(codes + i / 2 + ahead_bytes), _MM_HINT_T1);
      const float scale = scales[((begin + i) >> shift_) - first_block];
      const __m256bh values = _mm512_cvtneps_pbh(_mm512_mul_ps(codebook_, _mm512_set1_ps(scale)));
      // Twice, so that the bit above a code does not matter.
      const __m512i table = _mm512_broadcast_i64x4(reinterpret_cast<__m256i>(values));
      const __m512i pairs =
          _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i / 2)));
      _mm512_store_si512(target + i, _mm512_permutexvar_epi16(_mm512_srli_epi16(pairs, 4), table));
      _mm512_store_si512(target + i + 32, _mm512_permutexvar_epi16(pairs, table));
    }
  }

  const Matrix& matrix_;
  const __m512 codebook_;
  const int shift_;
  std::vector<float> expanded_;
};

}  // namespace
}  // namespace nibble
