#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear.cc"

#include "kernels/linear.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/bytes.h"
#include "kernels/matrix_rows.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using LinearFloat = hn::CappedTag<float, kLinearLanes>;
using VLinear = hn::Vec<LinearFloat>;

#if HWY_TARGET == HWY_SCALAR
constexpr int64_t kVectorLanes = 1;
#else
constexpr int64_t kVectorLanes = HWY_MIN(HWY_LANES(float), kLinearLanes);
#endif
constexpr int64_t kVectors = kLinearLanes / kVectorLanes;  // That hold the partial sums of one.

// A tile of kTile x kTile sums stays in registers: 16 of 32 with AVX-512, 8 of 16 with AVX2.
constexpr int64_t kTile = kVectors == 1 ? 4 : 2;

// Adds lanes i and i + 8, then i and i + 4, and so on: the same tree at every level.
inline float AddLanes(const VLinear* sums) {
  alignas(64) std::array<float, kLinearLanes> lanes;
  for (int64_t v = 0; v < kVectors; ++v) {
    hn::Store(sums[v], LinearFloat(), lanes.data() + v * kVectorLanes);
  }
  for (size_t half = kLinearLanes / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) {
      lanes[i] += lanes[i + half];
    }
  }
  return lanes[0];
}

// The last K % kLinearLanes numbers of a row, with zeros behind them.
inline void CopyTail(const float* row, int64_t begin, int64_t end, float* tail) {
  std::fill_n(tail, kLinearLanes, 0.0f);
  std::copy(row + begin, row + end, tail);
}

// targets[m][n] for kRows rows and kColumns rows of the matrix, `weights` [kColumns, padded].
template <int64_t kRows, int64_t kColumns>
HWY_INLINE void MultiplyTile(const float* const* rows, const float* weights, int64_t padded,
                             int64_t count, float* const* targets, int64_t n) {
  const LinearFloat d;
  VLinear sums[kRows][kColumns][kVectors];
  for (int64_t m = 0; m < kRows; ++m) {
    for (int64_t c = 0; c < kColumns; ++c) {
      for (int64_t v = 0; v < kVectors; ++v) {
        sums[m][c][v] = hn::Zero(d);
      }
    }
  }
  const auto add = [&](const float* const* sources, int64_t source_k, int64_t k) HWY_ATTR {
    for (int64_t v = 0; v < kVectors; ++v) {
      VLinear w[kColumns];
      for (int64_t c = 0; c < kColumns; ++c) {
        w[c] = hn::LoadU(d, weights + c * padded + k + v * kVectorLanes);
      }
      for (int64_t m = 0; m < kRows; ++m) {
        const VLinear x = hn::LoadU(d, sources[m] + source_k + v * kVectorLanes);
        for (int64_t c = 0; c < kColumns; ++c) {
          sums[m][c][v] = hn::MulAdd(x, w[c], sums[m][c][v]);
        }
      }
    }
  };
  const int64_t whole = RoundDown(count, kLinearLanes);
  for (int64_t k = 0; k < whole; k += kLinearLanes) {
    add(rows, k, k);
  }
  if (whole < count) {
    float tails[kRows][kLinearLanes];
    const float* pointers[kRows];
    for (int64_t m = 0; m < kRows; ++m) {
      CopyTail(rows[m], whole, count, tails[m]);
      pointers[m] = tails[m];
    }
    add(pointers, 0, whole);
  }
  for (int64_t m = 0; m < kRows; ++m) {
    for (int64_t c = 0; c < kColumns; ++c) {
      targets[m][n + c] = AddLanes(sums[m][c]);
    }
  }
}

template <int64_t kColumns>
void MultiplyColumns(const float* const* rows, int64_t row_count, const float* weights,
                     int64_t padded, int64_t count, float* const* targets, int64_t n) {
  int64_t m = 0;
  for (; m + kTile <= row_count; m += kTile) {
    MultiplyTile<kTile, kColumns>(rows + m, weights, padded, count, targets + m, n);
  }
  for (; m < row_count; ++m) {
    MultiplyTile<1, kColumns>(rows + m, weights, padded, count, targets + m, n);
  }
}

// `weights` holds `column_count` rows of the matrix, for n from `first` on.
void MultiplyWeights(const float* const* rows, int64_t row_count, const float* weights,
                     int64_t column_count, int64_t padded, int64_t count, float* const* targets,
                     int64_t first) {
  int64_t c = 0;
  for (; c + kTile <= column_count; c += kTile) {
    MultiplyColumns<kTile>(rows, row_count, weights + c * padded, padded, count, targets,
                           first + c);
  }
  for (; c < column_count; ++c) {
    MultiplyColumns<1>(rows, row_count, weights + c * padded, padded, count, targets, first + c);
  }
}

float Dot(const float* left, const float* right, int64_t count) {
  float result = 0;
  float* const target = &result;
  if (count % kLinearLanes == 0) {
    MultiplyTile<1, 1>(&left, right, count, count, &target, 0);
    return result;
  }
  // The tail of `right` has no padding.
  const LinearFloat d;
  VLinear sums[kVectors];
  for (int64_t v = 0; v < kVectors; ++v) {
    sums[v] = hn::Zero(d);
  }
  const auto add = [&](const float* a, const float* b) HWY_ATTR {
    for (int64_t v = 0; v < kVectors; ++v) {
      sums[v] = hn::MulAdd(hn::LoadU(d, a + v * kVectorLanes), hn::LoadU(d, b + v * kVectorLanes),
                           sums[v]);
    }
  };
  const int64_t whole = RoundDown(count, kLinearLanes);
  for (int64_t k = 0; k < whole; k += kLinearLanes) {
    add(left + k, right + k);
  }
  float left_tail[kLinearLanes];
  float right_tail[kLinearLanes];
  CopyTail(left, whole, count, left_tail);
  CopyTail(right, whole, count, right_tail);
  add(left_tail, right_tail);
  return AddLanes(sums);
}

void ExpandHalves(const uint16_t* source, int64_t count, float* target) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 8> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> half;
  const hn::Rebind<uint16_t, decltype(d)> words;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::PromoteTo(d, hn::BitCast(half, hn::LoadU(words, source + i))), d, target + i);
  }
#endif
  for (; i < count; ++i) {
    target[i] = LoadElement(FloatType::kF16, reinterpret_cast<const std::byte*>(source), i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(MultiplyWeights);
HWY_EXPORT(Dot);
HWY_EXPORT(ExpandHalves);

namespace {

// A half of the second-level cache of most processors; the other half is for activations.
constexpr int64_t kWeightBufferBytes = 256_KiB;
constexpr int64_t kGrainMin = 4;
constexpr int64_t kGrainMax = 64;

}  // namespace

void ExpandF16(const uint16_t* source, int64_t count, float* target) {
  HWY_DYNAMIC_DISPATCH(ExpandHalves)(source, count, target);
}

float DotProduct(const float* left, const float* right, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(Dot)(left, right, count);
}

int64_t LinearGrain(int64_t columns) {
  const int64_t row_bytes = RoundUp(columns, kLinearLanes) * int64_t{sizeof(float)};
  return RoundDown(std::clamp(kWeightBufferBytes / row_bytes, kGrainMin, kGrainMax), kGrainMin);
}

void MultiplyRows(const Matrix& matrix, const float* const* source_rows, float* const* target_rows,
                  int64_t row_count, int64_t first, int64_t last) {
  const int64_t columns = matrix.shape.columns;
  const int64_t padded = RoundUp(columns, kLinearLanes);
  const int64_t grain = LinearGrain(columns);
  // A thread of the pool keeps its buffer: what a step would have to allocate.
  thread_local std::vector<float> weights;
  weights.resize(static_cast<size_t>(grain * padded));
  for (int64_t n = first; n < last; n += grain) {
    const int64_t count = std::min(grain, last - n);
    for (int64_t c = 0; c < count; ++c) {
      float* const row = weights.data() + c * padded;
      ReadElements(matrix, (n + c) * columns, columns, row);
      std::fill(row + columns, row + padded, 0.0f);
    }
    HWY_DYNAMIC_DISPATCH(MultiplyWeights)
    (source_rows, row_count, weights.data(), count, padded, columns, target_rows, n);
  }
}

}  // namespace nibble
#endif  // HWY_ONCE
