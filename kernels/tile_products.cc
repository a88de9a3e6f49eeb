#include "kernels/tile_products.h"

#include <algorithm>

#include "kernels/bytes.h"
#include "kernels/check.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <array>
#include <bit>
#include <vector>

#include "kernels/fp4_format.h"
#include "kernels/matrix_rows.h"
#include "kernels/nf4_format.h"

#if defined(__clang__)
#pragma clang attribute push(                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")
#endif
#endif

namespace nibble {
namespace {

constexpr int64_t kTileColumns = 32;  // bf16 numbers of a tile's row.
constexpr int64_t kTileElements = kTileRows * kTileColumns;
constexpr int64_t kPanelRows = 32;
constexpr int64_t kGrainMax = 256;  // With kBlockRows, 256 KiB of sums.
constexpr int64_t kBlockRows = 256;

int64_t PaddedColumns(const MatrixShape& shape) { return RoundUp(shape.columns, kTileColumns); }

}  // namespace

bool HasTileProducts(ProductLevel level, const MatrixShape& shape) {
  return level == ProductLevel::kAmx && shape.format != MatrixFormat::kF32;
}

int64_t TileSourceBytes(const MatrixShape& shape, int64_t row_count) {
  return RoundUp(row_count, kTileRows) * PaddedColumns(shape) * 2;
}

int64_t TileGrain(int64_t rows, int thread_count) {
  return std::clamp(RoundUp(CeilDivide(rows, int64_t{2} * thread_count), kPanelRows), kPanelRows,
                    kGrainMax);
}

#if defined(__x86_64__)
}  // namespace nibble

#include "kernels/tile_factors-inl.h"

namespace nibble {
namespace {

// A piece of K: with many rows of activations a panel of it fits the first-level cache; with few,
// for whom memory is the bound, rows of the matrix are better read in long runs.
int64_t PieceColumns(int64_t row_count) { return row_count <= kPanelRows ? 2048 : 512; }

// Intel's manual, LDTILECFG: palette 1, all eight tiles of 16 rows of 64 bytes. A constant: GCC 12
// believes that the instruction reads eight bytes, and would leave out the stores of the others.
constexpr std::array<uint8_t, 64> TileConfiguration() {
  std::array<uint8_t, 64> bytes = {};
  bytes[0] = 1;
  for (size_t tile = 0; tile < 8; ++tile) {
    bytes[16 + 2 * tile] = 64;
    bytes[48 + tile] = 16;
  }
  return bytes;
}
alignas(64) constexpr std::array<uint8_t, 64> kTileConfiguration = TileConfiguration();

// Tiles of the calling thread, which its context switches need not save afterwards.
class TileScope {
 public:
  TileScope() { _tile_loadconfig(kTileConfiguration.data()); }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// sums += panel . activations, for kPanels x kRowTiles tiles of sums.
template <int kPanels, int kRowTiles>
inline void MultiplyBlock(const uint16_t* panel, int64_t columns, const uint16_t* activations,
                          int64_t activation_stride, bool first, float* sums,
                          int64_t panel_stride) {
  constexpr int64_t kSumElements = kTileRows * kTileRows;
  float* const other = sums + (kPanels == 2 ? panel_stride : 0);
  // GCC 12 does not know that tile loads read memory: stores before must not move behind them.
  asm volatile("" : : : "memory");
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, 64);
    if constexpr (kRowTiles == 2) {
      _tile_loadd(1, sums + kSumElements, 64);
    }
    if constexpr (kPanels == 2) {
      _tile_loadd(2, other, 64);
    }
    if constexpr (kPanels == 2 && kRowTiles == 2) {
      _tile_loadd(3, other + kSumElements, 64);
    }
  }
  for (int64_t k = 0; k < columns; k += kTileColumns) {
    _tile_loadd(4, panel + k, columns * 2);
    _tile_loadd(6, activations, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRowTiles == 2) {
      _tile_loadd(7, activations + kTileElements, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kPanels == 2) {
      _tile_loadd(5, panel + kTileRows * columns + k, columns * 2);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kPanels == 2 && kRowTiles == 2) {
      _tile_dpbf16ps(3, 5, 7);
    }
    activations += activation_stride;
  }
  _tile_stored(0, sums, 64);
  if constexpr (kRowTiles == 2) {
    _tile_stored(1, sums + kSumElements, 64);
  }
  if constexpr (kPanels == 2) {
    _tile_stored(2, other, 64);
  }
  if constexpr (kPanels == 2 && kRowTiles == 2) {
    _tile_stored(3, other + kSumElements, 64);
  }
}

// The sums of a thread: [panels of 16 rows of the matrix, tiles of activation rows, 16, 16].
struct TileSums {
  float* sums;
  int64_t row_tiles;

  float* Of(int64_t panel_tile, int64_t row_tile) const {
    return sums + (panel_tile * row_tiles + row_tile) * kTileRows * kTileRows;
  }
};

// One panel with all tiles of activation rows, `row_tiles` from `first_tile` on of `tile_stride`.
void MultiplyPanel(const uint16_t* panel, int64_t panel_tiles, int64_t panel_tile, int64_t columns,
                   const uint16_t* activations, int64_t activation_stride, bool first,
                   const TileSums& sums) {
  const int64_t panel_stride = sums.row_tiles * kTileRows * kTileRows;
  for (int64_t tile = 0; tile < sums.row_tiles; tile += 2) {
    const bool two = tile + 2 <= sums.row_tiles;
    const auto multiply = panel_tiles == 2 ? (two ? &MultiplyBlock<2, 2> : &MultiplyBlock<2, 1>)
                                           : (two ? &MultiplyBlock<1, 2> : &MultiplyBlock<1, 1>);
    multiply(panel, columns, activations + tile * kTileElements, activation_stride, first,
             sums.Of(panel_tile, tile), panel_stride);
  }
}

// Brings the sums of 16 rows of the matrix by 16 of activations to their places.
void StoreSums(const float* sums, float* const* targets, int64_t row_count, int64_t n,
               int64_t column_count) {
  __m512i rows[16];
  for (size_t i = 0; i < 16; ++i) {
    rows[i] = _mm512_load_si512(sums + 16 * i);
  }
  Transpose(rows);
  const auto present = static_cast<__mmask16>((1u << column_count) - 1);
  for (int64_t m = 0; m < row_count; ++m) {
    _mm512_mask_storeu_epi32(targets[m] + n, present, rows[m]);
  }
}

// A vector whose numbers begin at a multiple of 64 bytes. A thread keeps its own.
template <typename T>
T* AlignedBuffer(std::vector<T>& buffer, int64_t count) {
  buffer.resize(std::max(buffer.size(), static_cast<size_t>(count + 64)));
  return std::bit_cast<T*>(RoundUp(std::bit_cast<int64_t>(buffer.data()), 64));
}

// Row tiles [first_tile, first_tile + row_tiles) of the activations.
void MultiplyBlockRows(const Matrix& matrix, const uint16_t* prepared, int64_t all_tiles,
                       int64_t first_tile, int64_t row_tiles, int64_t first, int64_t last,
                       float* sums) {
  thread_local std::vector<uint16_t> panel_buffer;
  const int64_t padded = PaddedColumns(matrix.shape);
  const int64_t piece_max = PieceColumns(row_tiles * kTileRows);
  uint16_t* const panel = AlignedBuffer(panel_buffer, kPanelRows * piece_max);
  const TileSums tiles = {sums, row_tiles};
  const TileScope scope;
  PanelReader reader(matrix);
  for (int64_t k = 0; k < padded; k += piece_max) {
    const int64_t piece = std::min(piece_max, padded - k);
    const uint16_t* const activations =
        prepared + (k / kTileColumns * all_tiles + first_tile) * kTileElements;
    for (int64_t n = first; n < last; n += kPanelRows) {
      const int64_t count = std::min(kPanelRows, last - n);
      for (int64_t i = 0; i < count; ++i) {
        reader.Read(n + i, k, piece, panel + i * piece);
      }
      std::fill(panel + count * piece, panel + RoundUp(count, kTileRows) * piece, uint16_t{0});
      MultiplyPanel(panel, CeilDivide(count, kTileRows), (n - first) / kTileRows, piece,
                    activations, all_tiles * kTileElements, k == 0, tiles);
    }
  }
}

}  // namespace

void PrepareTileRows(const MatrixShape& shape, const float* const* sources, int64_t row_count,
                     int64_t first, int64_t last, uint16_t* prepared) {
  const int64_t tiles = CeilDivide(row_count, kTileRows);
  for (int64_t tile = first / kTileRows; tile * kTileRows < last; ++tile) {
    const float* const* const rows = sources + tile * kTileRows;
    const int64_t count = std::min(kTileRows, last - tile * kTileRows);
    __m512i some[16] = {};
    __m512i others[16] = {};
    const auto place = [&](int64_t k) {
      return prepared + (k / kTileColumns * tiles + tile) * kTileElements;
    };
    if (IsLookedUp(shape)) {
      for (int64_t k = 0; k < shape.columns; k += 64) {
        for (int64_t m = 0; m < count; ++m) {
          const RoundedHalves halves(rows[m] + k);
          some[m] = halves.even;
          others[m] = halves.odd;
        }
        std::fill(some + count, some + 16, _mm512_setzero_si512());
        std::fill(others + count, others + 16, _mm512_setzero_si512());
        StoreTile(some, place(k));
        StoreTile(others, place(k + kTileColumns));
      }
      continue;
    }
    for (int64_t k = 0; k < shape.columns; k += kTileColumns) {
      for (int64_t m = 0; m < count; ++m) {
        some[m] = Round(rows[m], k, shape.columns);
      }
      std::fill(some + count, some + 16, _mm512_setzero_si512());
      StoreTile(some, place(k));
    }
  }
}

void MultiplyTiles(const Matrix& matrix, const uint16_t* prepared, int64_t row_count,
                   float* const* targets, int64_t first, int64_t last) {
  thread_local std::vector<float> sums_buffer;
  const int64_t all_tiles = CeilDivide(row_count, kTileRows);
  const int64_t block_tiles = std::min(all_tiles, kBlockRows / kTileRows);
  const int64_t grain = std::min(kGrainMax, RoundUp(last - first, kTileRows));
  float* const sums = AlignedBuffer(sums_buffer, grain * block_tiles * kTileRows);
  for (int64_t n = first; n < last; n += grain) {
    const int64_t end = std::min(n + grain, last);
    for (int64_t tile = 0; tile < all_tiles; tile += block_tiles) {
      const int64_t row_tiles = std::min(block_tiles, all_tiles - tile);
      MultiplyBlockRows(matrix, prepared, all_tiles, tile, row_tiles, n, end, sums);
      const TileSums tiles = {sums, row_tiles};
      for (int64_t i = n; i < end; i += kTileRows) {
        for (int64_t t = 0; t < row_tiles; ++t) {
          const int64_t m = (tile + t) * kTileRows;
          StoreSums(tiles.Of((i - n) / kTileRows, t), targets + m,
                    std::min(kTileRows, row_count - m), i, std::min(kTileRows, end - i));
        }
      }
    }
  }
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else  // No level but the portable one is ever chosen there.

void PrepareTileRows(const MatrixShape&, const float* const*, int64_t, int64_t, int64_t,
                     uint16_t*) {
  Check(false, "a level that this processor has");
}
void MultiplyTiles(const Matrix&, const uint16_t*, int64_t, float* const*, int64_t, int64_t) {
  Check(false, "a level that this processor has");
}

#endif

}  // namespace nibble
