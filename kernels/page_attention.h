// What attention does with a page of the KV cache, on the host: a page is brought to fp32 once for
// all query heads that share it.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/step_ops.h"

namespace nibble {

// Brings a head's numbers of `count` tokens to fp32.
void ReadHeads(KvType type,
               const std::byte* source,  // The first token's.
               int64_t stride_bytes,     // From token to token.
               int64_t count, int64_t size,
               float* target);  // [count, size]

// In the order of DotProduct(): 16 partial sums.
void ScoreKeys(const float* query,  // [size]
               const float* keys,   // [count, size]
               int64_t count, int64_t size,
               float* scores);  // [count]

// totals[i] += sum over t, in their order, of weights[t] * values[t, i].
void AddValues(const float* weights,  // [count]
               const float* values,   // [count, size]
               int64_t count, int64_t size,
               float* totals);  // [size]

}  // namespace nibble
