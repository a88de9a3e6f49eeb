#include "server/command_line/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/command_line/byte_size.h"

namespace nibble {
namespace {

constexpr size_t kBarCellsMax = 40;
constexpr size_t kBarCellsMin = 5;  // A shorter bar tells nothing that the percentage does not.
constexpr size_t kTitleMin = 8;     // Characters that a title keeps beside a bar.
constexpr absl::Duration kRedrawInterval = absl::Milliseconds(100);
constexpr absl::Duration kRateWindow = absl::Seconds(3);
constexpr size_t kTerminalColumnsDefault = 80;

// 0 to 1. A total of nothing is done.
double Share(const ProgressMoment& moment) {
  if (moment.total_bytes <= 0) {
    return 1;
  }
  const double share =
      static_cast<double>(moment.done_bytes) / static_cast<double>(moment.total_bytes);
  return std::clamp(share, 0.0, 1.0);
}

// "0:07", "1:02:33".
std::string FormatClock(double seconds) {
  const int64_t whole = std::lround(std::clamp(seconds, 0.0, 359'999.0));
  const int64_t hours = whole / 3600;
  const int64_t minutes = whole / 60 % 60;
  return hours > 0 ? absl::StrFormat("%d:%02d:%02d", hours, minutes, whole % 60)
                   : absl::StrFormat("%d:%02d", minutes, whole % 60);
}

// " 62%  1.20 GB of 2.00 GB  1.31 GB/s  0:03 left"
std::string Figures(const ProgressMoment& moment) {
  // Rounded down: 100 % means done.
  std::string text = absl::StrFormat("%3d%%  %s of %s", static_cast<int>(Share(moment) * 100),
                                     FormatData(moment.done_bytes), FormatData(moment.total_bytes));
  if (moment.bytes_per_second > 0) {
    const auto left =
        static_cast<double>(std::max<int64_t>(moment.total_bytes - moment.done_bytes, 0));
    absl::StrAppend(&text, absl::StrFormat("  %.2f GB/s", moment.bytes_per_second / 1e9), "  ",
                    FormatClock(left / moment.bytes_per_second), " left");
  }
  return text;
}

size_t TerminalColumns(std::FILE* stream) {
  winsize size = {};
  const bool known = ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  // The last column stays free: some terminals wrap when it is filled.
  return (known ? size.ws_col : kTerminalColumnsDefault) - 1;
}

}  // namespace

std::string RenderProgressBar(const ProgressMoment& moment, size_t columns) {
  const std::string figures = Figures(moment);
  // "title  [####----] figures": what is left of the line for title and cells.
  const size_t fixed = figures.size() + 5;
  const size_t room = columns > fixed ? columns - fixed : 0;
  if (room < kBarCellsMin + std::min(moment.title.size(), kTitleMin)) {
    const size_t left = columns > figures.size() + 2 ? columns - figures.size() - 2 : 0;
    const std::string title = moment.title.substr(0, left);
    return absl::StrCat(title, title.empty() ? "" : "  ", figures).substr(0, columns);
  }
  const size_t title = std::min(moment.title.size(), room - kBarCellsMin);
  const size_t cells = std::min(kBarCellsMax, room - title);
  const auto full = static_cast<size_t>(Share(moment) * static_cast<double>(cells));
  return absl::StrCat(moment.title.substr(0, title), "  [", std::string(full, '#'),
                      std::string(cells - full, '-'), "] ", figures);
}

std::string RenderProgressLine(const ProgressMoment& moment) {
  return absl::StrCat(moment.title, "  ", Figures(moment));
}

void RateMeter::Add(absl::Time now, int64_t done_bytes) {
  samples_.emplace_back(now, done_bytes);
  while (samples_.size() > 2 && now - samples_[1].first >= kRateWindow) {
    samples_.pop_front();
  }
}

double RateMeter::bytes_per_second() const {
  if (samples_.size() < 2 || samples_.back().first <= samples_.front().first) {
    return 0;
  }
  return static_cast<double>(samples_.back().second - samples_.front().second) /
         absl::ToDoubleSeconds(samples_.back().first - samples_.front().first);
}

ProgressPrinter::ProgressPrinter(std::FILE* stream, std::string title, bool quiet)
    : stream_(stream),
      title_(std::move(title)),
      terminal_(isatty(fileno(stream)) == 1),
      quiet_(quiet) {}

ProgressPrinter::~ProgressPrinter() { Finish(); }

void ProgressPrinter::Update(int64_t done_bytes, int64_t total_bytes) {
  const absl::Time now = absl::Now();
  meter_.Add(now, done_bytes);
  const ProgressMoment moment = {title_, done_bytes, total_bytes, meter_.bytes_per_second()};
  if (terminal_) {
    if (now - shown_at_ >= kRedrawInterval) {
      shown_at_ = now;
      bar_on_screen_ = true;
      std::fprintf(stream_, "\r%s\x1b[K",
                   RenderProgressBar(moment, TerminalColumns(stream_)).c_str());
      std::fflush(stream_);
    }
    return;
  }
  const auto tenths = static_cast<int64_t>(Share(moment) * 10);
  if (!quiet_ && tenths > tenths_shown_) {
    tenths_shown_ = tenths;
    std::fprintf(stream_, "%s\n", RenderProgressLine(moment).c_str());
    std::fflush(stream_);
  }
}

void ProgressPrinter::Say(absl::string_view line) {
  if (!quiet_ || terminal_) {
    Finish();
    std::fprintf(stream_, "%s\n", std::string(line).c_str());
    std::fflush(stream_);
  }
}

void ProgressPrinter::Finish() {
  if (bar_on_screen_) {
    bar_on_screen_ = false;
    std::fputs("\r\x1b[K", stream_);
    std::fflush(stream_);
  }
}

}  // namespace nibble
