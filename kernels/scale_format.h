// Double quantization, bitsandbytes' format for the scales of a 4-bit tensor: the one description
// that host code, device code and tests share. The fp32 scales [b] of block_format.h become
//
//   offset       fp32   [1]              their mean
//   scale_codes  uint8  [b]              indices into a map of 256 values
//   absmax2      fp32   [ceil(b / 256)]  the largest |scale - offset| of each 256
//
//   scale = map[scale_code] * absmax2 + offset         (rounded after the product and after the
//   sum)
//
// A scale s gets the code of x = (s - offset) * (1 / absmax2): of the map's value that is nearest,
// and of the even one of two codes where x is their midpoint. NaN gets 0. The difference is IEEE's;
// what follows is CUDA's fast math as in nf4_format.h: a subnormal absmax2 is stored as 0, and its
// block's codes are 0, because 0 * (1 / 0) is NaN. The map is the "signed dynamic" one; a
// checkpoint carries the map that it was written with.
//
// Source: bitsandbytes functional.py, quantize_4bit and create_dynamic_map, and csrc/kernels.cu,
// dQuantize, whose search from code 127 in steps of 64, 32, ..., 1 ends on even codes: that is why
// ties go there.
// Cost: 8 + 32 / 256 bits a scale, 4.127 bits an element at block size 64 instead of 4.5.

#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/bytes.h"

namespace nibble {

inline constexpr int64_t kScaleBlockSize = 256;  // Scales that share an absmax2.
inline constexpr int64_t kScaleMapSize = 256;

constexpr int64_t ScaleBlockCount(int64_t scale_count) {
  return CeilDivide(scale_count, kScaleBlockSize);
}

// The values of codes 128 to 255. Code 127 is 0, and code 254 - i is minus code i: only 1 has no
// negative.
inline constexpr std::array<float, 128> kPositiveScaleMap = {
    5.50000038e-07f, 3.25000019e-06f, 7.7499999e-06f,  2.12499981e-05f,
    4.37499984e-05f, 6.62500024e-05f, 8.87499991e-05f, 0.000156250011f,
    0.000268750038f, 0.000381250022f, 0.000493750034f, 0.000606250076f,
    0.00071875006f,  0.000831249985f, 0.000943750085f, 0.00128124992f,
    0.00184375001f,  0.00240624999f,  0.00296874996f,  0.00353124971f,
    0.00409374991f,  0.00465624966f,  0.00521875033f,  0.00578125007f,
    0.00634374982f,  0.00690625003f,  0.00746874977f,  0.00803124998f,
    0.00859375019f,  0.00915624946f,  0.00971874967f,  0.0114062503f,
    0.0142187504f,   0.0170312505f,   0.0198437516f,   0.0226562507f,
    0.0254687499f,   0.028281251f,    0.0310937501f,   0.0339062512f,
    0.0367187522f,   0.0395312496f,   0.0423437469f,   0.0451562516f,
    0.047968749f,    0.05078125f,     0.053593751f,    0.0564062484f,
    0.0592187531f,   0.0620312504f,   0.0648437515f,   0.0676562563f,
    0.0704687461f,   0.0732812509f,   0.0760937482f,   0.078906253f,
    0.0817187577f,   0.0845312476f,   0.0873437524f,   0.0901562497f,
    0.0929687545f,   0.0957812592f,   0.0985937491f,   0.107031256f,
    0.12109375f,     0.135156244f,    0.149218753f,    0.163281247f,
    0.177343756f,    0.19140625f,     0.205468744f,    0.219531253f,
    0.233593747f,    0.247656241f,    0.26171875f,     0.275781274f,
    0.289843738f,    0.303906262f,    0.317968726f,    0.33203125f,
    0.346093744f,    0.360156238f,    0.374218762f,    0.388281226f,
    0.40234375f,     0.416406244f,    0.430468738f,    0.444531262f,
    0.458593726f,    0.47265625f,     0.486718714f,    0.500781238f,
    0.514843702f,    0.528906226f,    0.54296875f,     0.557031274f,
    0.571093798f,    0.585156262f,    0.599218726f,    0.61328125f,
    0.627343774f,    0.641406298f,    0.655468762f,    0.669531226f,
    0.68359375f,     0.697656274f,    0.711718798f,    0.725781262f,
    0.739843726f,    0.75390625f,     0.767968774f,    0.782031238f,
    0.796093762f,    0.810156226f,    0.82421875f,     0.838281274f,
    0.852343738f,    0.866406262f,    0.880468726f,    0.89453125f,
    0.908593774f,    0.922656238f,    0.936718762f,    0.950781226f,
    0.96484375f,     0.978906274f,    0.992968738f,    1.0f,
};

inline constexpr std::array<float, kScaleMapSize> kScaleMap = [] {
  std::array<float, kScaleMapSize> map = {};
  for (size_t i = 0; i < kPositiveScaleMap.size(); ++i) {
    map[128 + i] = kPositiveScaleMap[i];
    if (i + 1 < kPositiveScaleMap.size()) {
      map[126 - i] = -kPositiveScaleMap[i];
    }
  }
  return map;
}();

// kScaleThresholds[i] separates codes i and i + 1, strictly: the code of x is the number of
// thresholds that x is above. Where the even code is the upper one, the threshold is the float just
// below the midpoint, so that the midpoint is above it.
inline constexpr std::array<float, kScaleMapSize - 1> kScaleThresholds = [] {
  std::array<float, kScaleMapSize - 1> thresholds = {};
  for (size_t i = 0; i < thresholds.size(); ++i) {
    const float midpoint = (kScaleMap[i] + kScaleMap[i + 1]) * 0.5f;
    const uint32_t bits = std::bit_cast<uint32_t>(midpoint);
    const uint32_t bits_below = midpoint > 0 ? bits - 1 : bits + 1;
    thresholds[i] = i % 2 == 0 ? midpoint : std::bit_cast<float>(bits_below);
  }
  return thresholds;
}();

// The mean of scales is a sum in fp64 in an order that every device can follow, so that all give
// the same bits: lane i of 1024 adds scales i, i + 1024, i + 2048, ... in turn; then lane i adds
// lane i + 512 for i < 512, lane i + 256 for i < 256, and so on; lane 0 is divided by the number of
// scales and rounded to fp32. The sum of b positive numbers is within (b / 1024 + 10) * 2^-53 of
// itself, so the mean is the correctly rounded one unless the exact mean lies that near to the
// middle of two floats.
inline constexpr int64_t kMeanLanes = 1024;

// What NVIDIA's arithmetic makes of every NaN.
inline constexpr uint32_t kCanonicalNanBits = 0x7fffffff;

static_assert(ScaleBlockCount(256) == 1 && ScaleBlockCount(257) == 2, "a short last block");
static_assert(kScaleMap[127] == 0.0f && kScaleMap[255] == 1.0f && kScaleMap[0] == -kScaleMap[254]);

}  // namespace nibble
