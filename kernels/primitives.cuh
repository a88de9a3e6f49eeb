// Single instructions that the compiler does not produce from C++ without flags that would change
// the whole file.

#pragma once

namespace nibble {

// 1 / x as bitsandbytes computes it, which is compiled with --use_fast_math: within one ulp,
// subnormal operands and results are zeros. Division and __frcp_rn() are correctly rounded, which
// gives other bits.
__device__ __forceinline__ float ReciprocalApproximate(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// x * y with subnormal operands and results taken for zeros, again as fast math does.
__device__ __forceinline__ float MultiplyFlushed(float x, float y) {
  float result;
  asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(y));
  return result;
}

}  // namespace nibble
