#include "kernels/scale_search_ref.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "kernels/block_quantize_ref.h"
#include "kernels/flush_subnormal.h"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "kernels/ops.h"
#include "kernels/scale_search_table.h"

namespace nibble {
namespace {

int Rounded(double value) { return static_cast<int>(std::lrint(value)); }

// A block as the search sees it.
struct Block {
  const std::array<float, 16>& values;  // By code.
  const SearchFactors& factors;
  float absmax;
  std::vector<float> elements;
  std::vector<int> x;
};

// The level nearest to x of those under a factor in units of 2^-14. Of two as near, the lower.
int NearestValue(const Block& block, int x, double factor) {
  int nearest = 0;
  int level = Rounded(block.values[0] * factor);
  for (int code = 1; code < 16; ++code) {
    const int other = Rounded(block.values[static_cast<size_t>(code)] * factor);
    const int closer = std::abs(x - level) - std::abs(x - other);
    if (closer > 0 || (closer == 0 && other < level)) {
      nearest = code;
      level = other;
    }
  }
  return nearest;
}

int64_t SquaredDistance(const Block& block, int x, double factor) {
  const int code = NearestValue(block, x, factor);
  const int64_t distance = x - Rounded(block.values[static_cast<size_t>(code)] * factor);
  return distance * distance;
}

// The sum of what the cost table has for each element.
int64_t Cost(const Block& block, int16_t factor, bool is_turned) {
  int64_t sum = 0;
  for (const int x : block.x) {
    const int row = (x + (1 << (kSearchRowShift - 1))) >> kSearchRowShift;
    const int middle = (is_turned ? -row : row) * (1 << kSearchRowShift);
    const int64_t half = int64_t{1} << (block.factors.cost_shift - 1);
    const int64_t cost =
        (SquaredDistance(block, middle, factor) + half) >> block.factors.cost_shift;
    sum += std::min<int64_t>(cost, kSearchCostMax);
  }
  return sum;
}

struct Candidate {
  int16_t factor;
  bool is_turned;
};

Candidate Cheapest(const Block& block, bool is_signed) {
  Candidate best = {block.factors.factors.front(), false};
  int64_t best_cost = INT64_MAX;
  for (const bool is_turned : {false, true}) {
    for (const int16_t factor : block.factors.factors) {
      const int64_t cost = is_turned && !is_signed ? INT64_MAX : Cost(block, factor, is_turned);
      if (cost < best_cost) {
        best = {factor, is_turned};
        best_cost = cost;
      }
    }
  }
  return best;
}

// f', for the codes that the candidate gives.
float BestFactor(const Block& block, Candidate candidate) {
  int64_t product_sum = 0;
  int64_t square_sum = 0;
  for (const int element_x : block.x) {
    const int x = candidate.is_turned ? -element_x : element_x;
    const int code = NearestValue(block, x, candidate.factor);
    const int64_t weight = Rounded(double{block.values[static_cast<size_t>(code)]} * kSearchUnit /
                                   (1 << kSearchWeightShift));
    product_sum += x * weight;
    square_sum += weight * weight;
  }
  const float ratio = static_cast<float>(product_sum) / static_cast<float>(square_sum);
  return ratio / (1 << kSearchWeightShift);
}

int64_t PlainError(const Block& block) {
  int64_t sum = 0;
  for (const int x : block.x) {
    const int code = NearestValue(block, x, kSearchUnit);
    const int distance =
        std::abs(x - Rounded(double{block.values[static_cast<size_t>(code)]} * kSearchUnit));
    const int64_t least = std::max(0, distance - kSearchErrorMargin);
    sum += least * least;
  }
  return sum;
}

int64_t SearchedError(const Block& block, const std::vector<uint8_t>& codes, float factor,
                      bool is_turned) {
  int64_t sum = 0;
  for (size_t i = 0; i < block.x.size(); ++i) {
    const float level = block.values[codes[i]] * (factor * kSearchUnit);  // Rounded to fp32.
    const int x = is_turned ? -block.x[i] : block.x[i];
    const int64_t most = std::abs(x - Rounded(double{level})) + kSearchErrorMargin;
    sum += most * most;
  }
  return sum;
}

uint8_t CodeOf(Codebook codebook, float x) {
  if (codebook == Codebook::kNf4) {
    return static_cast<uint8_t>(std::count_if(kNf4Thresholds.begin(), kNf4Thresholds.end(),
                                              [&](float threshold) { return x > threshold; }));
  }
  const auto rank = std::count_if(kFp4Thresholds.begin(), kFp4Thresholds.end(),
                                  [&](float threshold) { return std::fabs(x) > threshold; });
  return static_cast<uint8_t>(kFp4Order[static_cast<size_t>(rank)] | (x < 0 ? 8 : 0));
}

void StoreBlock(Codebook codebook, const std::vector<uint8_t>& codes, uint8_t* target) {
  const uint8_t pad = codebook == Codebook::kNf4 ? 7 : 0;  // The code of an element of 0.
  for (size_t i = 0; i < codes.size(); i += 2) {
    const uint8_t low = i + 1 < codes.size() ? codes[i + 1] : pad;
    target[i / 2] = static_cast<uint8_t>(codes[i] << 4 | low);
  }
}

// Improves on a block whose plain codes and scale are already there, if it can.
void SearchBlock(bool is_signed, Codebook codebook, Block block, uint8_t* codes, float* scale) {
  for (const float element : block.elements) {
    block.x.push_back(Rounded(double{element * (kSearchUnit / block.absmax)}));
  }
  const Candidate candidate = Cheapest(block, is_signed);
  const float factor = BestFactor(block, candidate);
  if (!(factor >= kSearchFactorMin && factor <= kSearchFactorMax)) {
    return;
  }
  const float magnitude = factor * block.absmax;
  const float searched_scale = candidate.is_turned ? -magnitude : magnitude;
  const float reciprocal = 1.0f / searched_scale;
  std::vector<uint8_t> searched_codes;
  for (const float element : block.elements) {
    const float x = FlushSubnormal(FlushSubnormal(element) * reciprocal);
    searched_codes.push_back(CodeOf(codebook, x));
  }
  if (SearchedError(block, searched_codes, factor, candidate.is_turned) < PlainError(block)) {
    StoreBlock(codebook, searched_codes, codes);
    *scale = searched_scale;
  }
}

}  // namespace

void ScaleSearchRef(ScaleSearch search, Codebook codebook, int64_t block_size, FloatType type,
                    const std::byte* source, int64_t element_count, uint8_t* codes, float* scales) {
  QuantizeRef(codebook, block_size, type, source, element_count, codes, scales);
  if (search == ScaleSearch::kNone) {
    return;
  }
  for (int64_t begin = 0; begin < element_count; begin += block_size) {
    const int64_t count = std::min(block_size, element_count - begin);
    const std::byte* const block_source = source + begin * BytesPerElement(type);
    float* const scale = scales + begin / block_size;
    if (FindNonFiniteRef(type, block_source, count) != kAllFinite || *scale < kSearchedScaleMin ||
        *scale > kSearchedScaleMax) {
      continue;
    }
    Block block = {codebook == Codebook::kNf4 ? kNf4Values : kFp4Values,
                   SearchFactorsOf(block_size),
                   *scale,
                   {},
                   {}};
    for (int64_t i = 0; i < count; ++i) {
      block.elements.push_back(LoadElement(type, block_source, i));
    }
    SearchBlock(IsSigned(search, codebook), codebook, std::move(block), codes + begin / 2, scale);
  }
}

}  // namespace nibble
