// What the tests of the scale search share: comparing with plain blocks, and squared errors in
// arithmetic that none of the code under test uses.

#pragma once

#include <cmath>

#include "tests/kernels/block_data.h"
#include "tests/kernels/block_fixture.h"

namespace nibble {

inline constexpr ScaleSearch kSearches[] = {ScaleSearch::kPositive, ScaleSearch::kSigned};

// The plain planes of the same case.
inline BlockCase Plain(BlockCase c) {
  c.scale_search = ScaleSearch::kNone;
  return c;
}

// Squared errors of each block, as any reader decodes it: codebook[code] * scale in fp32.
inline std::vector<double> BlockErrors(const BlockCase& c, const BlockPlanes& planes) {
  std::vector<double> errors(planes.scales.size());
  const auto& values = c.codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
  for (int64_t index = 0; index < c.element_count(); ++index) {
    const auto block = static_cast<size_t>(index / c.block_size);
    const float value = values[CodeAt(planes.codes, index)] * planes.scales[block];
    const double error =
        double{LoadElement(c.type, c.source.data(), index)} - static_cast<double>(value);
    errors[block] += error * error;
  }
  return errors;
}

inline double Sum(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) {
    sum += value;
  }
  return sum;
}

}  // namespace nibble
