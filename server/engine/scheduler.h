// Which sequences go on in the next step, and how far. A pure function of what is known of them.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/engine/serving_sizes.h"

namespace nibble {

// A sequence that runs, as the scheduler sees it.
struct SequenceView {
  int64_t tokens = 0;    // Prompt and answer so far.
  int64_t computed = 0;  // Of them; fewer than tokens.
  int64_t pages = 0;     // That it holds.
  bool paused = false;   // Its client does not take what there is.
  bool scores = false;   // The logits of every row are wanted.
  int64_t stop = 0;      // Of its tokens, where a step must end so that its state can be kept.
};

struct Schedule {
  std::vector<int64_t> counts;    // Tokens of each sequence in this step; 0: none.
  std::vector<size_t> preempted;  // Give all pages back and begin anew later.
};

// `running` stands in the order of arrival. A sequence that needs a page when there is none takes
// it from the newest one, which is preempted; never from an older one, so one of them always goes
// on. Answers come first, then prompts in the order of arrival, as many tokens of them as a step
// has rows.
//
// Requires: the pool holds a full context.
Schedule MakeSchedule(std::span<const SequenceView> running, int64_t available_pages,
                      const StepLimits& limits);

}  // namespace nibble
