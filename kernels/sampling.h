// Sampling on the host.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/sample_ops.h"

namespace nibble {

// Chooses a token from `logits` [V]. `mask` is null or has a bit for each token. `scratch` is
// overwritten; giving the same one again saves allocations.
SampledRow SampleLogits(const SamplerRow& sampler, std::span<const LogitAdjustment> adjustments,
                        const uint32_t* mask, std::span<const float> logits,
                        std::vector<float>& scratch);

}  // namespace nibble
