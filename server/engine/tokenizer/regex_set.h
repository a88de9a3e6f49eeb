// Sets of characters in regular expressions: [a-z[0-9]&&[^b]], \s, \p{Han}.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// One character out of those that it holds. Either items and members together, or the characters
// that all of `common` hold; `negated` turns the whole about.
struct CharacterSet {
  std::string items = {};                  // As PCRE2 writes them between brackets.
  std::vector<CharacterSet> members = {};  // Sets that PCRE2 cannot write between brackets.
  std::vector<CharacterSet> common = {};
  bool negated = false;

  // As a PCRE2 expression that matches one character.
  std::string ToPcre2() const;
};

// \w, \w between brackets, and \s, as Oniguruma means them in UTF-8.
CharacterSet WordSet();
CharacterSet BracketedWordSet();
CharacterSet SpaceSet();

// Reads `pattern` from `position` on, and leaves `position` behind what it read.
class CharacterSetReader {
 public:
  CharacterSetReader(absl::string_view pattern, size_t& position)
      : pattern_(pattern), position_(position) {}

  // Requires: a '[' stands at the position.
  absl::StatusOr<CharacterSet> ReadBrackets();

  // The escapes that stand for sets: \s \S \d \D \w \W \h \H \p{..} \P{..}. False, with the
  // position unchanged, if another escape stands there.
  //
  // Requires: a backslash stands at the position.
  absl::StatusOr<bool> ReadSetEscape(bool in_brackets, CharacterSet& set);

  // The escapes that stand for one character: \n, \x41, \x{1F642}, \u0041, \-.
  //
  // Requires: a backslash stands at the position.
  absl::StatusOr<uint32_t> ReadCharacterEscape();

 private:
  absl::Status ReadItem(CharacterSet& set, bool& closed);
  absl::Status ReadRange(CharacterSet& set);
  absl::StatusOr<bool> ReadPosixBracket(CharacterSet& set);
  absl::StatusOr<uint32_t> ReadHexDigits(size_t digits_max);
  uint32_t ReadLiteral();
  bool Follows(absl::string_view text) const {
    return pattern_.substr(position_).substr(0, text.size()) == text;
  }

  absl::string_view pattern_;
  size_t& position_;
  int depth_ = 0;
};

}  // namespace nibble
