#include "server/engine/text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"

namespace nibble {

absl::Status CheckStopStrings(const std::vector<std::string>& stops) {
  if (stops.size() > kStopStringsMax) {
    return BadField("stop", absl::StrCat("expected at most ", kStopStringsMax, " strings, found ",
                                         stops.size()));
  }
  for (const std::string& stop : stops) {
    if (stop.empty() || stop.size() > kStopStringBytesMax) {
      return BadField("stop", absl::StrCat("expected 1 to ", kStopStringBytesMax, " bytes, found ",
                                           stop.size()));
    }
  }
  return absl::OkStatus();
}

std::string StopStrings::Append(absl::string_view text) {
  if (found_) {
    return "";
  }
  held_.append(text.data(), text.size());
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
  }
  if (first != std::string::npos) {
    found_ = true;
    held_.resize(first);
    return std::exchange(held_, "");
  }
  // The longest end of the text that begins a stop string.
  size_t kept = 0;
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, held_.size()); size > kept; --size) {
      if (absl::EndsWith(held_, absl::string_view(stop).substr(0, size))) {
        kept = size;
      }
    }
  }
  std::string text_before = held_.substr(0, held_.size() - kept);
  held_.erase(0, text_before.size());
  return text_before;
}

std::string StopStrings::Finish() { return found_ ? "" : std::exchange(held_, ""); }

}  // namespace nibble
