// The activation of most models' gates, on the host.

#pragma once

#include <cstdint>

namespace nibble {

// target[i] = gate[i] / (1 + exp(-gate[i])) * value[i]. The exponential is within an ulp or two.
void GateBySilu(const float* gate, const float* value, int64_t count, float* target);

}  // namespace nibble
