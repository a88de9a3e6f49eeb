// How far a load is: a bar on a terminal, one line a step elsewhere.

#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nibble {

// A moment of something that moves bytes.
struct ProgressMoment {
  std::string title;
  int64_t done_bytes = 0;
  int64_t total_bytes = 0;
  double bytes_per_second = 0;  // 0: not known yet.
};

// One line of at most `columns` characters, without newline: title, bar, percent, bytes, rate, time
// left. The bar gives way first where there is little room, then the title.
std::string RenderProgressBar(const ProgressMoment& moment, size_t columns);

// The same without the bar, for logs.
std::string RenderProgressLine(const ProgressMoment& moment);

// The rate of the last few seconds, so that a stall shows. One thread.
class RateMeter {
 public:
  void Add(absl::Time now, int64_t done_bytes);

  // 0 until two moments apart are known.
  double bytes_per_second() const;

 private:
  std::deque<std::pair<absl::Time, int64_t>> samples_;
};

// Prints progress to `stream`, often enough to look alive and no more: ten times a second on a
// terminal, at each tenth of the way elsewhere. One thread.
class ProgressPrinter {
 public:
  // `quiet` prints nothing where there is no terminal.
  ProgressPrinter(std::FILE* stream, std::string title, bool quiet);
  ~ProgressPrinter();

  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

  void Update(int64_t done_bytes, int64_t total_bytes);

  // A line of its own: what was planned, what is waited for.
  void Say(absl::string_view line);

  // Leaves the terminal at the start of an empty line. Idempotent.
  void Finish();

 private:
  std::FILE* const stream_;
  const std::string title_;
  const bool terminal_;
  const bool quiet_;
  RateMeter meter_;
  absl::Time shown_at_ = absl::InfinitePast();
  int64_t tenths_shown_ = 0;
  bool bar_on_screen_ = false;
};

}  // namespace nibble
