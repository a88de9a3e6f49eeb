// NF4, bitsandbytes' NormalFloat: 16 values that are equally likely in normal data.
//
// A value v of a block with scale s gets the code of x = v * (1 / s): the number of thresholds that
// x is strictly greater than. Ties stay at the lower code; NaN compares false everywhere and gets
// 0. The arithmetic is fp32 as CUDA's fast math has it, where subnormal operands and results are
// zeros:
//
//   all v zero or subnormal   s is stored as 0; 1 / 0 = inf, 0 * inf = NaN: code 0, which decodes
//   to
//                             -1 * 0 = -0.0
//   s > 2^126                 1 / s is subnormal, so 0: every finite v gets the code of 0
//   a v is Inf                s = Inf, 1 / s = 0: finite v get the code of 0, Inf * 0 = NaN code 0
//   a v is NaN                ignored in s, code 0; a full block of NaN has s = -FLT_MAX, a short
//                             one, which is padded with zeros, 0
//
// The thresholds are bitsandbytes' literals. Four of them (0/1, 8/9, 12/13, 14/15) are one ulp off
// the midpoint of their codes; they are what its kernels compare with.
//
// Source: bitsandbytes csrc/kernels.cu, dQuantizeNF4, and functional.py, get_4bit_type.

#pragma once

#include <array>

namespace nibble {

inline constexpr std::array<float, 16> kNf4Values = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// kNf4Thresholds[i] separates codes i and i + 1.
inline constexpr std::array<float, 15> kNf4Thresholds = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f,
};

}  // namespace nibble
