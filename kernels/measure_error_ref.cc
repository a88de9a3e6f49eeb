#include "kernels/measure_error_ref.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/block_quantize_ref.h"

namespace nibble {
namespace {

using Lanes = std::array<double, kErrorLanes>;

double AddNeighbours(Lanes lanes) {
  for (size_t count = lanes.size(); count > 1; count /= 2) {
    for (size_t i = 0; i < count / 2; ++i) {
      lanes[i] = lanes[2 * i] + lanes[2 * i + 1];
    }
  }
  return lanes[0];
}

}  // namespace

void MeasureErrorRef(Codebook codebook, int64_t block_size, FloatType type, const std::byte* source,
                     const uint8_t* codes, const float* scales, int64_t element_count,
                     ErrorSums* sums) {
  std::vector<float> decoded(static_cast<size_t>(element_count));
  DequantizeRef(codebook, block_size, FloatType::kF32, codes, scales, element_count,
                reinterpret_cast<std::byte*>(decoded.data()));
  std::fill_n(sums, ErrorChunkCount(element_count), ErrorSums());
  for (int64_t begin = 0; begin < element_count; begin += kErrorPieceElements) {
    const int64_t end = std::min(begin + kErrorPieceElements, element_count);
    Lanes squared_error = {};
    Lanes squared = {};
    ErrorSums piece;
    for (int64_t index = begin; index < end; ++index) {
      const float value = LoadElement(type, source, index);
      const float error = value - decoded[static_cast<size_t>(index)];
      const auto lane = static_cast<size_t>(index % kErrorLanes);
      squared_error[lane] += static_cast<double>(error) * static_cast<double>(error);
      squared[lane] += static_cast<double>(value) * static_cast<double>(value);
      piece.error_max = std::fabs(error) > piece.error_max ? std::fabs(error) : piece.error_max;
    }
    piece.squared_error = AddNeighbours(squared_error);
    piece.squared = AddNeighbours(squared);
    sums[begin / kErrorChunkElements] += piece;
  }
}

}  // namespace nibble
