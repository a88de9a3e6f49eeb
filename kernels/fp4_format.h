// FP4, bitsandbytes' 4-bit float. Not E2M1: bit 3 is the sign, the low three bits pick a magnitude
// out of order (0, 1, 6, 7, 4, 5, 2, 3 ascending), and the smallest is 1/192.
//
// A value v of a block with scale s gets the code of |x|, x = v * (1 / s): strictly greater than a
// threshold picks the larger magnitude, ties stay at the smaller. The sign bit is set where x < 0,
// so a tiny negative gets 8 (minus zero), but -0.0 and an x that is subnormal get 0. NaN gets 0.
// Edge cases as in nf4_format.h. Thresholds lie on values that 16-bit data hits, so the last bit of
// 1 / s counts: gpu_reciprocal.h.
//
// Source: bitsandbytes csrc/kernels.cu, dQuantizeFP4, and functional.py, get_4bit_type.

#pragma once

#include <array>
#include <cstdint>

namespace nibble {

// By code; 12ths in fp32. Code 8 is -0, as CUDA's kernels decode it; the quant_map of bitsandbytes'
// checkpoints holds +0 there.
inline constexpr std::array<float, 16> kFp4Values = {
    0.0f,  0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
    -0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f,
};

// kFp4Thresholds[i] separates kFp4Order[i] and kFp4Order[i + 1], on |x|.
inline constexpr std::array<float, 7> kFp4Thresholds = {
    0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f,
};
inline constexpr std::array<uint8_t, 8> kFp4Order = {0, 1, 6, 7, 4, 5, 2, 3};

}  // namespace nibble
