// How tokens are chosen, as a client asks for it.

#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace nibble {

inline constexpr int64_t kLogitBiasesMax = 1024;

struct SamplingOptions {
  float temperature = 1;  // 0: always the most likely token.
  int64_t top_k = 0;      // 0: all.
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;  // Of tokens in prompt or answer: divides positive logits.
  float frequency_penalty = 0;   // Subtracted for each time that a token is in the answer.
  float presence_penalty = 0;    // Subtracted if it is in the answer.
  std::vector<std::pair<int32_t, float>> logit_biases;  // At most one for each token.
  uint64_t seed = 0;
  int64_t top_log_probabilities = -1;  // -1: none wanted; 0: of the token alone; up to 20.
};

// A seed for a request that gives none.
uint64_t DrawSeed();

// Errors: INVALID_ARGUMENT that names the field: NaN, negative temperature, top_p outside (0, 1],
//   min_p outside [0, 1], penalties outside [-2, 2], repetition_penalty outside (0, 10], a bias
//   outside [-100, 100] or of a token that is not in the vocabulary.
absl::Status Validate(const SamplingOptions& options, int64_t vocabulary_size);

}  // namespace nibble
