// The GPU's approximate reciprocal on the host. bitsandbytes divides by a block's scale with
// rcp.approx.ftz.f32, which is within one ulp but not correctly rounded: about 2 in 10 000 bytes of
// FP4 depend on that ulp, and no byte of NF4 from BF16 or F16 does.

#pragma once

namespace nibble {

// Returns 1 / x with the bits that rcp.approx.ftz.f32 gives on an H200 if the lower 13 mantissa
// bits of `x` are zero, as those of every BF16 and F16 value are; else correctly rounded, which is
// one ulp off for 13 % of all mantissas. Subnormal operands and results are zeros of their sign.
float GpuReciprocal(float x);

}  // namespace nibble
