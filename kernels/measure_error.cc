// Error statistics by SIMD: a piece is dequantized in parts that stay in the cache, and its rows of
// 256 elements are added to the lanes.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/measure_error.cc"

#include "kernels/measure_error.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_quantize.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/measure_error_ref.h"
#include "kernels/simd_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // The portable fallback is the reference.

void MeasureChunk(Codebook codebook, int64_t block_size, FloatType type, const std::byte* source,
                  const uint8_t* codes, const float* scales, int64_t element_count,
                  ErrorSums* sums) {
  MeasureErrorRef(codebook, block_size, type, source, codes, scales, element_count, sums);
}

#else

namespace hn = hwy::HWY_NAMESPACE;
using Float = hn::CappedTag<float, 16>;
using VFloat = hn::Vec<Float>;
using HalfFloat = hn::Half<Float>;
using Double = hn::RepartitionToWide<Float>;

constexpr int64_t kPartElements = kBlockSizeMax;  // Whole blocks of every size; 16 KiB of fp32.

struct Lanes {
  alignas(64) std::array<double, kErrorLanes> squared_error = {};
  alignas(64) std::array<double, kErrorLanes> squared = {};
  float error_max = 0;
};

template <FloatType kType>
HWY_INLINE VFloat LoadFloats(const std::byte* source) {
  const Float d;
  if constexpr (kType == FloatType::kF32) {
    const hn::Repartition<uint8_t, Float> d8;
    return hn::BitCast(d, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(source)));
  } else {
    const hn::Rebind<uint16_t, Float> d16;
    const hn::Repartition<uint8_t, decltype(d16)> d8;
    const auto bits = hn::BitCast(d16, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(source)));
    if constexpr (kType == FloatType::kBf16) {
      const hn::RebindToUnsigned<Float> d32;
      return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
    } else if constexpr (kRoundsToF16) {
      return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, Float>(), bits));
    } else {
      alignas(64) std::array<float, hn::MaxLanes(Float())> values;
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = LoadElement(kType, source, static_cast<int64_t>(i));
      }
      return hn::Load(d, values.data());
    }
  }
}

// Adds the squares of one vector to `lanes`. The square of an fp32 number is exact in fp64, so that
// it makes no difference whether the addition is fused.
HWY_INLINE void AddSquares(VFloat values, double* HWY_RESTRICT lanes) {
  const Double d;
  const auto lower = hn::PromoteTo(d, hn::LowerHalf(HalfFloat(), values));
  const auto upper = hn::PromoteTo(d, hn::UpperHalf(HalfFloat(), values));
  double* const upper_lanes = lanes + hn::Lanes(d);
  hn::Store(hn::MulAdd(lower, lower, hn::Load(d, lanes)), d, lanes);
  hn::Store(hn::MulAdd(upper, upper, hn::Load(d, upper_lanes)), d, upper_lanes);
}

// Adds whole rows of kErrorLanes elements.
template <FloatType kType>
HWY_INLINE void AddRows(const std::byte* source, const float* decoded, int64_t row_count,
                        Lanes& lanes) {
  const Float d;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  VFloat error_max = hn::Set(d, lanes.error_max);
  for (int64_t i = 0; i < row_count * kErrorLanes; i += step) {
    const VFloat value = LoadFloats<kType>(source + i * BytesPerElement(kType));
    const VFloat error = hn::Sub(value, hn::LoadU(d, decoded + i));
    const VFloat magnitude = hn::Abs(error);
    error_max = hn::IfThenElse(hn::Gt(magnitude, error_max), magnitude, error_max);
    AddSquares(error, &lanes.squared_error[static_cast<size_t>(i % kErrorLanes)]);
    AddSquares(value, &lanes.squared[static_cast<size_t>(i % kErrorLanes)]);
  }
  lanes.error_max = hn::GetLane(hn::MaxOfLanes(d, error_max));
}

void AddElement(FloatType type, const std::byte* source, const float* decoded, int64_t index,
                Lanes& lanes) {
  const float value = LoadElement(type, source, index);
  const float error = value - decoded[index];
  const auto lane = static_cast<size_t>(index % kErrorLanes);
  lanes.squared_error[lane] += static_cast<double>(error) * static_cast<double>(error);
  lanes.squared[lane] += static_cast<double>(value) * static_cast<double>(value);
  lanes.error_max = std::fabs(error) > lanes.error_max ? std::fabs(error) : lanes.error_max;
}

void AddPart(FloatType type, const std::byte* source, const float* decoded, int64_t count,
             Lanes& lanes) {
  const int64_t row_count = count / kErrorLanes;
  switch (type) {
    case FloatType::kF32:
      AddRows<FloatType::kF32>(source, decoded, row_count, lanes);
      break;
    case FloatType::kF16:
      AddRows<FloatType::kF16>(source, decoded, row_count, lanes);
      break;
    case FloatType::kBf16:
      AddRows<FloatType::kBf16>(source, decoded, row_count, lanes);
      break;
  }
  for (int64_t index = row_count * kErrorLanes; index < count; ++index) {
    AddElement(type, source, decoded, index, lanes);
  }
}

double AddNeighbours(std::array<double, kErrorLanes>& lanes) {
  for (size_t count = lanes.size(); count > 1; count /= 2) {
    for (size_t i = 0; i < count / 2; ++i) {
      lanes[i] = lanes[2 * i] + lanes[2 * i + 1];
    }
  }
  return lanes[0];
}

void MeasureChunk(Codebook codebook, int64_t block_size, FloatType type, const std::byte* source,
                  const uint8_t* codes, const float* scales, int64_t element_count,
                  ErrorSums* sums) {
  alignas(64) std::array<float, kPartElements> decoded;
  *sums = ErrorSums();
  for (int64_t piece = 0; piece < element_count; piece += kErrorPieceElements) {
    const int64_t piece_end = std::min(piece + kErrorPieceElements, element_count);
    Lanes lanes;
    for (int64_t part = piece; part < piece_end; part += kPartElements) {
      const int64_t count = std::min(kPartElements, piece_end - part);
      DequantizeBlocks(codebook, block_size, FloatType::kF32, codes + part / 2,
                       scales + part / block_size, count,
                       reinterpret_cast<std::byte*>(decoded.data()));
      AddPart(type, source + part * BytesPerElement(type), decoded.data(), count, lanes);
    }
    *sums += {AddNeighbours(lanes.squared_error), AddNeighbours(lanes.squared), lanes.error_max};
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(MeasureChunk);

void MeasureBlockError(Codebook codebook, int64_t block_size, FloatType type,
                       const std::byte* source, const uint8_t* codes, const float* scales,
                       int64_t element_count, ErrorSums* sums) {
  for (int64_t begin = 0; begin < element_count; begin += kErrorChunkElements) {
    const int64_t count = std::min(kErrorChunkElements, element_count - begin);
    HWY_DYNAMIC_DISPATCH(MeasureChunk)
    (codebook, block_size, type, source + begin * BytesPerElement(type), codes + begin / 2,
     scales + begin / block_size, count, sums + begin / kErrorChunkElements);
  }
}

}  // namespace nibble
#endif  // HWY_ONCE
