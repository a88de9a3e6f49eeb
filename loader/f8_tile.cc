#include "loader/f8_tile.h"

#include <algorithm>

namespace nibble {
namespace {

constexpr int64_t kAlignmentBytes = 256;

int64_t Columns(const PlannedTensor& tensor) {
  return tensor.shape.empty() ? 1 : std::max<int64_t>(tensor.shape.back(), 1);
}

// Elements of the matrix rows that share a row of scales; at most those of the tensor.
int64_t ElementsPerScaleRow(const PlannedTensor& tensor) {
  const int64_t columns = Columns(tensor);
  const int64_t rows = std::max<int64_t>(tensor.source_bytes / columns, 1);
  return columns * std::min(tensor.f8_scale->block_rows, rows);
}

// Bytes of one row of scales.
int64_t ScaleRowBytes(const PlannedTensor& tensor) {
  const StoredF8Scale& scale = *tensor.f8_scale;
  return CeilDivide(Columns(tensor), scale.block_columns) * BytesPerElement(scale.scale_type);
}

int64_t ExpandedBytes(const PlannedTensor& tensor) {
  return tensor.quantized() ? BytesPerElement(ElementType(tensor)) : 0;
}

}  // namespace

int64_t F8TileElements(const PlannedTensor& tensor, int64_t slot_bytes) {
  const int64_t scale_row_bytes = ScaleRowBytes(tensor);
  const int64_t elements_per_scale_row = ElementsPerScaleRow(tensor);
  // A run of n elements touches at most n / elements_per_scale_row + 2 rows of scales.
  const int64_t fixed_bytes = 2 * scale_row_bytes + 3 * kAlignmentBytes;
  const int64_t bytes_per_element =
      1 + ExpandedBytes(tensor) + CeilDivide(scale_row_bytes, elements_per_scale_row);
  return std::max<int64_t>(slot_bytes - fixed_bytes, 0) / bytes_per_element;
}

F8Tile PlaceF8Tile(const PlannedTensor& tensor, int64_t first_element, int64_t count) {
  const StoredF8Scale& scale = *tensor.f8_scale;
  F8Tile tile;
  tile.range.type = *AsF8Type(tensor.source_dtype);
  tile.range.scale_type = scale.scale_type;
  tile.range.first_index = first_element;
  tile.range.element_count = count;
  tile.range.columns = Columns(tensor);
  tile.range.block_rows = scale.block_rows;
  tile.range.block_columns = scale.block_columns;
  const int64_t scale_row_bytes = ScaleRowBytes(tensor);
  tile.scales_file_offset = scale.scales.offset + tile.range.first_scale_row() * scale_row_bytes;
  tile.scales_bytes = tile.range.scale_row_count() * scale_row_bytes;
  tile.scales_offset = RoundUp(count, kAlignmentBytes);
  tile.expanded_offset = RoundUp(tile.scales_offset + tile.scales_bytes, kAlignmentBytes);
  return tile;
}

}  // namespace nibble
