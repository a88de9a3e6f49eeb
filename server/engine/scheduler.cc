#include "server/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "kernels/bytes.h"

namespace nibble {
namespace {

class Scheduler {
 public:
  Scheduler(std::span<const SequenceView> running, int64_t available_pages,
            const StepLimits& limits)
      : running_(running),
        available_pages_(available_pages),
        rows_(limits.rows),
        outputs_(limits.outputs),
        gone_(running.size()) {
    schedule_.counts.resize(running.size());
  }

  Schedule Run() {
    for (const bool answers : {true, false}) {
      for (size_t index = 0; index < running_.size(); ++index) {
        const SequenceView& sequence = running_[index];
        const bool is_answer = sequence.tokens - sequence.computed == 1 && !sequence.scores;
        if (!gone_[index] && !sequence.paused && is_answer == answers) {
          Place(index);
        }
      }
    }
    return std::move(schedule_);
  }

 private:
  void Place(size_t index) {
    const SequenceView& sequence = running_[index];
    int64_t count = std::min(sequence.tokens - sequence.computed, rows_);
    if (sequence.scores) {
      count = std::min(count, outputs_);
    }
    if (sequence.stop > sequence.computed) {
      count = std::min(count, sequence.stop - sequence.computed);
    }
    if (count <= 0 || outputs_ <= 0) {
      return;
    }
    while (PagesFor(sequence, count) > available_pages_ && PreemptNewerThan(index)) {
    }
    const int64_t missing = PagesFor(sequence, count) - available_pages_;
    if (missing > 0) {
      // As far as the pages reach.
      const int64_t room = (sequence.pages + available_pages_) * kPageTokens - sequence.computed;
      count = std::min(count, room);
    }
    if (count <= 0) {
      return;
    }
    available_pages_ -= PagesFor(sequence, count);
    rows_ -= count;
    outputs_ -= sequence.scores ? count : 1;
    schedule_.counts[index] = count;
  }

  static int64_t PagesFor(const SequenceView& sequence, int64_t count) {
    return std::max(CeilDivide(sequence.computed + count, kPageTokens) - sequence.pages,
                    int64_t{0});
  }

  // Preempts the newest sequence that holds pages and has no part in the step yet.
  bool PreemptNewerThan(size_t index) {
    for (size_t other = running_.size(); other-- > index + 1;) {
      if (!gone_[other] && schedule_.counts[other] == 0 && running_[other].pages > 0) {
        gone_[other] = true;
        available_pages_ += running_[other].pages;
        schedule_.preempted.push_back(other);
        return true;
      }
    }
    return false;
  }

  const std::span<const SequenceView> running_;
  int64_t available_pages_;
  int64_t rows_;
  int64_t outputs_;
  std::vector<bool> gone_;
  Schedule schedule_;
};

}  // namespace

Schedule MakeSchedule(std::span<const SequenceView> running, int64_t available_pages,
                      const StepLimits& limits) {
  return Scheduler(running, available_pages, limits).Run();
}

}  // namespace nibble
