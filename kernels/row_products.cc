#include "kernels/row_products.h"

#include <algorithm>
#include <bit>

#include "kernels/bytes.h"
#include "kernels/fused_rows.h"
#include "kernels/linear.h"
#include "kernels/tile_products.h"

namespace nibble {
namespace {

// Up to here decoding in registers again and again costs less than a panel: on a Xeon with AMX
// three rows take 1.7 times as long as one, and a panel with tiles for up to 16 rows as long.
constexpr int64_t kFusedRowsBesideTiles = 3;

// Without tiles each pass of kFusedRowsMax rows costs as much as expanding to fp32 for all.
constexpr int64_t kFusedRowsAlone = 8;

// A thread's work at once: a thousandth of a second's at most, so that threads end together.
constexpr int64_t kFusedGrainBytesMin = 32_KiB;

int64_t RowBytes(const MatrixShape& shape) {
  switch (shape.format) {
    case MatrixFormat::kF32:
      return shape.columns * 4;
    case MatrixFormat::kF16:
    case MatrixFormat::kBf16:
      return shape.columns * 2;
    case MatrixFormat::kNf4:
    case MatrixFormat::kFp4:
      return shape.columns / 2 + 1;
  }
  return 1;
}

}  // namespace

ProductKernel ChooseProductKernel(const MatrixShape& shape, const ProductOptions& options,
                                  int64_t row_bound) {
  const ProductLevel level = CurrentProductLevel();
  if (options.arithmetic == Arithmetic::kFp32) {
    return ProductKernel::kExpanded;
  }
  const bool fused = HasFusedRows(level, shape);
  if (options.batch_invariant) {
    return fused ? ProductKernel::kFused : ProductKernel::kExpanded;
  }
  const bool tiles = HasTileProducts(level, shape);
  if (fused && row_bound <= (tiles ? kFusedRowsBesideTiles : kFusedRowsAlone)) {
    return ProductKernel::kFused;
  }
  return tiles ? ProductKernel::kTiles : ProductKernel::kExpanded;
}

RowProducts::RowProducts(const MatrixShape& shape, ProductKernel kernel,
                         std::span<const float* const> sources, std::span<float* const> targets)
    : shape_(shape),
      sources_(sources),
      targets_(targets),
      level_(CurrentProductLevel()),
      kernel_(kernel) {}

int64_t RowProducts::prepared_bytes() const {
  const int64_t row_count = std::ssize(sources_);
  switch (kernel_) {
    case ProductKernel::kExpanded:
      return 0;
    case ProductKernel::kFused:
      return row_count * FusedRowWidth(shape_) * 4;
    case ProductKernel::kTiles:
      return TileSourceBytes(shape_, row_count);
  }
  return 0;
}

int64_t RowProducts::piece_count() const {
  const int64_t row_count = std::ssize(sources_);
  switch (kernel_) {
    case ProductKernel::kExpanded:
      return 0;
    case ProductKernel::kFused:
      return row_count;
    case ProductKernel::kTiles:
      return CeilDivide(row_count, kTileRows);
  }
  return 0;
}

void RowProducts::Prepare(int64_t piece, std::byte* prepared) const {
  if (kernel_ == ProductKernel::kFused) {
    PrepareFusedRow(level_, shape_, sources_[static_cast<size_t>(piece)],
                    reinterpret_cast<float*>(prepared) + piece * FusedRowWidth(shape_));
  } else if (kernel_ == ProductKernel::kTiles) {
    const int64_t first = piece * kTileRows;
    PrepareTileRows(shape_, sources_.data(), std::ssize(sources_), first,
                    std::min(first + kTileRows, std::ssize(sources_)),
                    reinterpret_cast<uint16_t*>(prepared));
  }
}

int64_t RowProducts::Grain(int thread_count) const {
  switch (kernel_) {
    case ProductKernel::kExpanded:
      return LinearGrain(shape_.columns);
    case ProductKernel::kFused: {
      const int64_t least = CeilDivide(kFusedGrainBytesMin, RowBytes(shape_));
      const int64_t quarter = CeilDivide(shape_.rows, int64_t{4} * thread_count);
      return RoundUp(std::max(least, quarter), 2);
    }
    case ProductKernel::kTiles:
      return TileGrain(shape_.rows, thread_count);
  }
  return 1;
}

void RowProducts::Multiply(const MatrixPlanes& planes, const std::byte* prepared, int64_t first,
                           int64_t last) const {
  const Matrix matrix = {shape_, planes};
  switch (kernel_) {
    case ProductKernel::kExpanded:
      MultiplyRows(matrix, sources_.data(), targets_.data(), std::ssize(sources_), first, last);
      return;
    case ProductKernel::kFused:
      MultiplyFusedRows(level_, matrix, reinterpret_cast<const float*>(prepared), targets_.data(),
                        std::ssize(sources_), first, last);
      return;
    case ProductKernel::kTiles:
      MultiplyTiles(matrix, reinterpret_cast<const uint16_t*>(prepared), std::ssize(sources_),
                    targets_.data(), first, last);
      return;
  }
}

std::byte* PreparedMemory(int64_t bytes) {
  thread_local std::vector<std::byte> memory;
  if (std::ssize(memory) < bytes + 64) {
    memory.resize(static_cast<size_t>(bytes + 64));
  }
  return std::bit_cast<std::byte*>(RoundUp(std::bit_cast<int64_t>(memory.data()), 64));
}

}  // namespace nibble
