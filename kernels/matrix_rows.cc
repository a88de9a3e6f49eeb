#include "kernels/matrix_rows.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <span>

#include "kernels/block_quantize.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/host_ops.h"
#include "kernels/linear.h"
#include "kernels/scale_quantize.h"

namespace nibble {
namespace {

template <typename T>
const T* At(uint64_t address) {
  return std::bit_cast<const T*>(address);
}

// The fp32 scales of a few blocks, wherever they are stored.
class BlockScales {
 public:
  explicit BlockScales(const Matrix& matrix) : matrix_(matrix) {}

  // Of blocks from `first` on, at most `count` and at least one of them.
  std::span<const float> Read(int64_t first, int64_t count) {
    const MatrixPlanes& planes = matrix_.planes;
    if (!matrix_.shape.double_quantized) {
      return {At<float>(planes.scales) + first, static_cast<size_t>(count)};
    }
    count = std::min(count, kScaleBlockSize - first % kScaleBlockSize);
    DequantizeScales(At<uint8_t>(planes.scales) + first,
                     At<float>(planes.scale_maxima) + first / kScaleBlockSize,
                     *At<float>(planes.scale_mean), At<float>(planes.scale_map), count,
                     scales_.data());
    return {scales_.data(), static_cast<size_t>(count)};
  }

 private:
  const Matrix& matrix_;
  std::array<float, kScaleBlockSize> scales_;
};

Codebook CodebookOf(MatrixFormat format) {
  return format == MatrixFormat::kNf4 ? Codebook::kNf4 : Codebook::kFp4;
}

// Elements [first, first + count) of one block: a row may begin and end within it.
void ReadPartOfBlock(const Matrix& matrix, float scale, int64_t first, int64_t count,
                     float* target) {
  std::array<float, kBlockSizeMax> values;
  const int64_t block_size = matrix.shape.block_size;
  const int64_t begin = RoundDown(first, block_size);
  const int64_t length = std::min(block_size, matrix.shape.element_count() - begin);
  DequantizeBlocks(CodebookOf(matrix.shape.format), block_size, FloatType::kF32,
                   At<uint8_t>(matrix.planes.data) + begin / 2, &scale, length,
                   reinterpret_cast<std::byte*>(values.data()));
  std::copy_n(values.begin() + (first - begin), count, target);
}

void ReadFourBit(const Matrix& matrix, int64_t first, int64_t count, float* target) {
  const int64_t block_size = matrix.shape.block_size;
  const int64_t last = first + count;
  BlockScales scales(matrix);
  while (first < last) {
    const int64_t block = first / block_size;
    const std::span<const float> some = scales.Read(block, CeilDivide(last, block_size) - block);
    const int64_t whole_end =
        std::min(RoundDown(last, block_size), (block + std::ssize(some)) * block_size);
    int64_t end;
    if (first % block_size != 0 || whole_end <= first) {
      end = std::min(last, (block + 1) * block_size);
      ReadPartOfBlock(matrix, some.front(), first, end - first, target);
    } else {
      end = whole_end;
      DequantizeBlocks(CodebookOf(matrix.shape.format), block_size, FloatType::kF32,
                       At<uint8_t>(matrix.planes.data) + first / 2, some.data(), end - first,
                       reinterpret_cast<std::byte*>(target));
    }
    target += end - first;
    first = end;
  }
}

}  // namespace

void ReadElements(const Matrix& matrix, int64_t first, int64_t count, float* target) {
  switch (matrix.shape.format) {
    case MatrixFormat::kF32:
      std::memcpy(target, At<float>(matrix.planes.data) + first,
                  static_cast<size_t>(count) * sizeof(float));
      return;
    case MatrixFormat::kBf16: {
      const uint16_t* const source = At<uint16_t>(matrix.planes.data) + first;
      for (int64_t i = 0; i < count; ++i) {
        target[i] = std::bit_cast<float>(static_cast<uint32_t>(source[i]) << 16);
      }
      return;
    }
    case MatrixFormat::kF16:
      ExpandF16(At<uint16_t>(matrix.planes.data) + first, count, target);
      return;
    case MatrixFormat::kNf4:
    case MatrixFormat::kFp4:
      ReadFourBit(matrix, first, count, target);
      return;
  }
}

void ReadScales(const Matrix& matrix, int64_t first, int64_t count, float* target) {
  BlockScales scales(matrix);
  for (int64_t done = 0; done < count;) {
    const std::span<const float> some = scales.Read(first + done, count - done);
    std::copy(some.begin(), some.end(), target + done);
    done += std::ssize(some);
  }
}

float ReadElement(const WeightVector& vector, int64_t index) {
  return LoadElement(vector.type, HostPointer<const std::byte>(vector.span), index);
}

}  // namespace nibble
