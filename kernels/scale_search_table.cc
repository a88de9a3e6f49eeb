#include "kernels/scale_search_table.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"

namespace nibble {
namespace {

using Values = std::array<float, 16>;
using Levels = std::array<int16_t, 16>;  // By index, ascending.

// The codes of a codebook in the order of their values; FP4 has two zeros, -0 first.
std::array<uint8_t, 16> CodesOf(const Values& values) {
  std::array<uint8_t, 16> codes;
  std::iota(codes.begin(), codes.end(), uint8_t{0});
  std::stable_sort(codes.begin(), codes.end(), [&](uint8_t a, uint8_t b) {
    return std::pair(values[a], !std::signbit(values[a])) <
           std::pair(values[b], !std::signbit(values[b]));
  });
  return codes;
}

// Of nf4_format.h and fp4_format.h, where FP4's are of magnitudes: its two zeros are separated by
// 0.
Values BordersOf(Codebook codebook) {
  Values borders;
  borders.fill(std::numeric_limits<float>::infinity());
  if (codebook == Codebook::kNf4) {
    std::copy(kNf4Thresholds.begin(), kNf4Thresholds.end(), borders.begin());
    return borders;
  }
  for (size_t i = 0; i < kFp4Thresholds.size(); ++i) {
    borders[6 - i] = -kFp4Thresholds[i];
    borders[8 + i] = kFp4Thresholds[i];
  }
  borders[7] = 0.0f;
  return borders;
}

Levels LevelsOf(const Values& ascending, double factor) {
  Levels levels;
  std::transform(ascending.begin(), ascending.end(), levels.begin(),
                 [&](double value) { return static_cast<int16_t>(std::lrint(value * factor)); });
  return levels;
}

Levels ThresholdsOf(const Levels& levels) {
  Levels thresholds = {};
  for (size_t i = 0; i + 1 < levels.size(); ++i) {
    thresholds[i] = static_cast<int16_t>((levels[i] + levels[i + 1]) >> 1);
  }
  return thresholds;
}

template <typename T>
ByLevel<T> EvenAndOdd(const std::array<T, 16>& of_levels) {
  ByLevel<T> split = {};
  for (size_t i = 0; i < of_levels.size(); ++i) {
    split[i % 2][i / 2] = of_levels[i];
  }
  return split;
}

uint16_t CostOf(const Levels& levels, int x, int shift) {
  int nearest = INT_MAX;
  for (const int16_t level : levels) {
    nearest = std::min(nearest, std::abs(x - level));
  }
  const int64_t squared = int64_t{nearest} * nearest;
  const int64_t cost = (squared + (int64_t{1} << (shift - 1))) >> shift;
  return static_cast<uint16_t>(std::min<int64_t>(cost, kSearchCostMax));
}

ScaleSearchTable Make(Codebook codebook, const SearchFactors& factors) {
  const Values& values = codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
  const std::array<uint8_t, 16> codes = CodesOf(values);
  Values ascending;
  std::transform(codes.begin(), codes.end(), ascending.begin(),
                 [&](uint8_t code) { return values[code]; });
  ScaleSearchTable table = {};
  for (int i = 0; i < kSearchFactors; ++i) {
    const Levels levels = LevelsOf(ascending, factors.factors[static_cast<size_t>(i)]);
    table.thresholds[i] = EvenAndOdd(ThresholdsOf(levels));
    for (int row = -kSearchRowMax; row <= kSearchRowMax; ++row) {
      table.costs[kSearchRowMax + row][i] =
          CostOf(levels, row * (1 << kSearchRowShift), factors.cost_shift);
    }
  }
  const Levels plain = LevelsOf(ascending, kSearchUnit);
  table.plain_thresholds = EvenAndOdd(ThresholdsOf(plain));
  table.plain_levels = EvenAndOdd(plain);
  table.weights = EvenAndOdd(LevelsOf(ascending, kSearchUnit / (1 << kSearchWeightShift)));
  table.values = EvenAndOdd(ascending);
  table.borders = EvenAndOdd(BordersOf(codebook));
  std::copy(codes.begin(), codes.end(), table.codes);
  std::copy(values.begin(), values.end(), table.values_by_code);
  return table;
}

}  // namespace

const ScaleSearchTable& ScaleSearchTableOf(Codebook codebook, int64_t block_size) {
  static const ScaleSearchTable nf4_near = Make(Codebook::kNf4, kNearFactors);
  static const ScaleSearchTable nf4_far = Make(Codebook::kNf4, kFarFactors);
  static const ScaleSearchTable fp4_near = Make(Codebook::kFp4, kNearFactors);
  static const ScaleSearchTable fp4_far = Make(Codebook::kFp4, kFarFactors);
  const bool is_near = &SearchFactorsOf(block_size) == &kNearFactors;
  if (codebook == Codebook::kNf4) {
    return is_near ? nf4_near : nf4_far;
  }
  return is_near ? fp4_near : fp4_far;
}

}  // namespace nibble
