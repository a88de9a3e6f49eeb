// Choosing the next token from logits, on the device.

#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "kernels/matrix.h"

namespace nibble {

inline constexpr int64_t kTopLogProbabilitiesMax = 20;  // As the OpenAI API has it.

// How one row is sampled; lies in device memory. In the order in which they apply: adjustments,
// mask, temperature, top_k, top_p, min_p.
struct SamplerRow {
  float temperature = 0;  // 0: the largest logit, of equal ones the lower id.
  float top_p = 1;        // The fewest tokens, most likely first, whose shares reach it.
  float min_p = 0;        // At least this share of the most likely one's.
  int32_t top_k = 0;      // 0: all.
  uint64_t seed = 0;      // Seed and position alone decide the random number.
  int32_t position = 0;
  int32_t first_adjustment = 0;  // Of this row's run in the list.
  int32_t adjustment_count = 0;
  int32_t mask_index = -1;  // -1: every token is allowed.
  int32_t forced_id = -1;   // Not chosen but given: its log-probability is wanted.
  int32_t top_count = 0;    // Log-probabilities wanted of the most likely tokens.
};
static_assert(sizeof(SamplerRow) == 48, "device code reads arrays of them");

// What penalties and biases do to one token's logit: it is divided by `penalty` if positive, else
// multiplied, and then `bias` is added. An id stands at most once in a row's run.
struct LogitAdjustment {
  int32_t id = 0;
  float penalty = 1;
  float bias = 0;
};
static_assert(sizeof(LogitAdjustment) == 12, "device code reads arrays of them");

// What came of a row; lies in device memory. Log-probabilities are those of the model: of the
// logits without adjustments, mask, temperature or anything else.
struct SampledRow {
  int32_t id = -1;  // -1: no logit is a number.
  float log_probability = 0;
  int32_t top_ids[kTopLogProbabilitiesMax] = {};  // Most likely first.
  float top_log_probabilities[kTopLogProbabilitiesMax] = {};
};
static_assert(sizeof(SampledRow) == 168, "device code writes arrays of them");

struct SampleArgs {
  RowCount rows;
  Activations logits;      // [M, V]; undefined afterwards
  DeviceSpan samplers;     // SamplerRow [M]
  DeviceSpan adjustments;  // LogitAdjustment [any]; undefined afterwards
  DeviceSpan masks;        // uint32 [masks, ceil(V / 32)]: bit 1 = allowed
  DeviceSpan results;      // SampledRow [M], written
};

// A number in [0, 1) that depends on seed and position alone, the same on every device: the upper
// 24 bits of SplitMix64.
constexpr float RandomShare(uint64_t seed, int32_t position) {
  uint64_t bits =
      seed + (static_cast<uint64_t>(static_cast<uint32_t>(position)) + 1) * 0x9e3779b97f4a7c15u;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  bits ^= bits >> 31;
  return static_cast<float>(bits >> 40) * 0x1p-24f;
}

// Errors: INVALID_ARGUMENT.
absl::Status CheckArgs(const SampleArgs& args);

}  // namespace nibble
