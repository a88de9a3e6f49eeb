// Timing several pieces of work side by side: a round runs each once, so that what the machine does
// meanwhile (frequency, neighbours) falls on all of them alike.

#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace nibble {

struct TimedWork {
  std::string name;
  std::function<void()> run;
  std::vector<double> seconds = {};  // One a round.

  // Requires: 0 <= quantile <= 1, at least one round.
  double SecondsAt(double quantile) const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(
        std::lround(quantile * static_cast<double>(sorted.size() - 1)))];
  }
  double MedianSeconds() const { return SecondsAt(0.5); }
};

// Processor time of the calling thread: what one core needs, whoever else wants it meanwhile.
inline double ThreadSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

inline double WallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs one round that is not counted and then `rounds` that are, by `clock`.
inline void TimeInterleaved(std::vector<TimedWork>& works, int rounds, double (*clock)()) {
  for (int round = -1; round < rounds; ++round) {
    for (TimedWork& work : works) {
      const double begin = clock();
      work.run();
      const double elapsed = clock() - begin;
      if (round >= 0) {
        work.seconds.push_back(elapsed);
      }
    }
  }
}

}  // namespace nibble
