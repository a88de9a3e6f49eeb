// Finds the first stop string in a text that comes in pieces.

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nibble {

inline constexpr size_t kStopStringsMax = 16;
inline constexpr size_t kStopStringBytesMax = 1024;

// Errors: INVALID_ARGUMENT for too many, an empty one, or one that is too long.
absl::Status CheckStopStrings(const std::vector<std::string>& stops);

// Holds back what may be the beginning of a stop string. Belongs to one thread.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Returns: the text that no stop string can reach any more; once found() it ends before the stop
  // string, and nothing comes after it.
  std::string Append(absl::string_view text);

  // Returns: what was held back.
  std::string Finish();

  bool found() const { return found_; }

 private:
  const std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace nibble
