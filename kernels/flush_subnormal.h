// CUDA's fast math on the host: subnormal operands and results of fp32 operations are zeros.

#pragma once

#include <cfloat>
#include <cmath>

namespace nibble {

// Returns `value`, or a zero of its sign if it is subnormal.
inline float FlushSubnormal(float value) {
  return std::fabs(value) < FLT_MIN ? std::copysign(0.0f, value) : value;
}

}  // namespace nibble
