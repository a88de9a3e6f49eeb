// Choosing the scale of a block for the least squared error, where plain NF4 and FP4 take the
// largest magnitude ("absmax"). The planes stay those of block_format.h: codes, and an fp32 scale
// that any reader of the format multiplies by; a negative scale turns NF4's table, which is not
// symmetric, round. For each block:
//
//   1  x     = round(v * (2^14 / absmax)), an integer
//   2  cost  = for each of 16 factors f, and of -f if scales may be negative, the sum over the
//              block of the squared distance of x to the nearest level of f * absmax; from a table
//              of x / 2^6, rounded. The least wins, of equal ones the first, f before -f.
//   3  f'    = sum(x c) / sum(c c), c the codebook values nearest to x / f: the best factor for
//              these codes (a step of Lloyd's algorithm, which takes 16 factors to where hundreds
//              would be)
//   4  codes = as nf4_format.h and fp4_format.h have them, under the scale f' * absmax; 1 / scale
//              is rounded to nearest, not the GPU's approximation
//   5  these are taken if, level' being that of an element's code and level the nearest of absmax,
//              sum (|x - level'| + 2)^2  <  sum max(0, |x - level| - 2)^2
//              and the plain codes and scale otherwise. An x is off by 0.5, a level by 0.5, the
//              fp32 products by less than 0.01: with 2 an element for them, a searched block has
//              less error than the plain one in exact arithmetic too.
//
// Steps 2, 3 and 5 are sums of integers, and steps 1 and 4 single roundings: every device and SIMD
// level makes the same choices in whatever order it adds. Blocks with NaN or Inf, and those whose
// absmax is outside kSearchedScaleMin..Max, stay plain.
//
// Why these factors: kernels/README.md, Decisions.

#pragma once

#include <array>
#include <cstdint>

#include "kernels/block_format.h"

namespace nibble {

// Whether negative scales are tried too. FP4's table turned round is itself.
constexpr bool IsSigned(ScaleSearch search, Codebook codebook) {
  return search == ScaleSearch::kSigned && codebook == Codebook::kNf4;
}

// Beyond these, reciprocals or products might be subnormal. No model has such weights.
inline constexpr float kSearchedScaleMin = 0x1p-100f;
inline constexpr float kSearchedScaleMax = 0x1p100f;

inline constexpr float kSearchUnit = 0x1p14f;  // x of a block's largest magnitude.
inline constexpr int kSearchFactors = 16;      // One vector of 16-bit sums.
inline constexpr int kSearchRowShift = 6;      // A row of costs for each 2^6 of x.
inline constexpr int kSearchRowMax = 1 << (14 - kSearchRowShift);
inline constexpr int kSearchCostMax = 1023;  // So that 64 costs are a 16-bit number.
inline constexpr int kSearchCostElements = 64;
inline constexpr int kSearchErrorMargin = 2;      // See step 5.
inline constexpr int kSearchWeightShift = 2;      // c is in units of 2^-12, so that sums fit.
inline constexpr float kSearchFactorMin = 0.25f;  // Of f': levels stay within 16 bits.
inline constexpr float kSearchFactorMax = 1.75f;

// Factors in units of 2^-14, in equal ratios, up to where absmax falls on the second largest level
// (1.38 and 1.44 for NF4), down to where the largest blocks of heavy-tailed data want them.
struct SearchFactors {
  std::array<int16_t, kSearchFactors> factors;
  int cost_shift;  // Of a squared distance, so that (1 - f)^2 at the least f stays below the limit.
};
inline constexpr SearchFactors kNearFactors = {
    {12288, 12822, 13380, 13961, 14568, 15202, 15863, 16552,   //  0.75 ...
     17272, 18023, 18806, 19624, 20477, 21367, 22296, 23265},  //  ... 1.42
    15};
inline constexpr SearchFactors kFarFactors = {
    {9830, 10412, 11027, 11679, 12369, 13100, 13875, 14695,    //  0.60 ...
     15564, 16484, 17458, 18490, 19583, 20741, 21967, 23265},  //  ... 1.42
    16};

// From 256 up the far ones cost normal data 0.3 % at most, and save Student's t of 4 degrees (FP4)
// 1.3 % at 256, 7 % at 512; below, they cost more than they save.
constexpr const SearchFactors& SearchFactorsOf(int64_t block_size) {
  return block_size <= 128 ? kNearFactors : kFarFactors;
}

// Sixteen numbers by the index of a level, values ascending: of the even ones, of the odd ones. So
// a binary search finds its thresholds: threshold i separates levels i and i + 1, the first is the
// odd 3, then the odd 1 and 5, the odd 0, 2, 4 and 6, the even ones.
template <typename T>
using ByLevel = std::array<std::array<T, 8>, 2>;

// What the fast searches look up; a codebook has one for each set of factors. Level i under a
// factor is round(value * factor), in units of 2^-14; thresholds are the middles of two levels,
// rounded down: an integer above one is nearer to the higher level.
struct ScaleSearchTable {
  // costs[kSearchRowMax + row][i]: of an element whose x is nearest to row * 2^6, under factor i.
  alignas(32) uint16_t costs[2 * kSearchRowMax + 1][kSearchFactors];
  alignas(32) ByLevel<int16_t> thresholds[kSearchFactors];
  alignas(32) ByLevel<int16_t> plain_thresholds;  // Of the factor 1, as are:
  alignas(32) ByLevel<int16_t> plain_levels;
  alignas(32) ByLevel<int16_t> weights;  // c in units of 2^-12.
  alignas(32) ByLevel<float> values;     // The codebook.
  alignas(32) ByLevel<float> borders;    // Its own thresholds, the last of them infinite.
  alignas(16) uint8_t codes[16];         // Of the levels, ascending.
  alignas(32) float values_by_code[16];
};

// Made when first asked for.
const ScaleSearchTable& ScaleSearchTableOf(Codebook codebook, int64_t block_size);

}  // namespace nibble
