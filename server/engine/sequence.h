// A request while the engine works on it.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "server/engine/generation.h"
#include "server/engine/scheduler.h"

namespace nibble {

// Belongs to the engine's thread.
struct Sequence {
  GenerationRequest request;
  std::shared_ptr<Generation> generation;
  absl::Time arrived;
  absl::Time first_token = absl::InfiniteFuture();
  absl::Time last_token;

  std::vector<int32_t> tokens;  // Prompt and answer.
  int64_t prompt_count = 0;
  int64_t computed = 0;               // Whose keys and values are in the cache.
  std::vector<int32_t> pages;         // Empty while it waits.
  int32_t state_slot = -1;            // -1 while it waits.
  int64_t scored = 1;                 // Tokens of the prompt that were delivered, and the first.
  std::map<int32_t, int64_t> counts;  // How often each token is in the answer; 0: in the prompt.

  int64_t generated() const { return static_cast<int64_t>(tokens.size()) - prompt_count; }

  // Whether rows of the prompt are still to be scored.
  bool scores() const { return request.score_prompt && computed < prompt_count; }

  // A prompt that is scored is computed by itself, before the answer.
  SequenceView view() const {
    const auto end = scores() ? prompt_count : static_cast<int64_t>(tokens.size());
    return {end, computed, static_cast<int64_t>(pages.size()), false, scores(), 0};
  }
};

}  // namespace nibble
