// Reads a pattern's characters and classes; pattern.cc reads what is made of them.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/engine/grammar/character_classes.h"

namespace nibble {

// A cursor over code points. The first error sticks; from then on the end seems to be reached.
class PatternReader {
 public:
  // Requires: `text` is UTF-8.
  explicit PatternReader(absl::string_view text);

  const absl::Status& status() const { return status_; }

  bool at_end() const { return !status_.ok() || position_ >= codes_.size(); }
  // 0 at the end, and further on.
  uint32_t Peek(size_t ahead = 0) const;
  uint32_t Next();
  bool Consume(absl::string_view ascii);

  // What stands behind a backslash, which was read.
  CharacterClass ReadEscape(bool in_class);
  // What stands behind '[', which was read.
  CharacterClass ReadClass();
  // Decimal digits, if there are any.
  std::optional<int64_t> ReadCount();

  void Unsupported(absl::string_view what);
  void Invalid(absl::string_view what);

 private:
  uint32_t ReadHex(int digits);

  const std::string text_;  // For messages.
  std::u32string codes_;
  size_t position_ = 0;
  absl::Status status_;
};

}  // namespace nibble
