// Text as a sequence of Unicode characters: walking it, writing it, and what kind a character is.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

inline constexpr absl::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// How many bytes the character that begins with `first` takes.
//
// Requires: `first` begins a character of valid UTF-8.
inline size_t Utf8Length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1U : byte < 0xE0 ? 2U : byte < 0xF0 ? 3U : 4U;
}

// The character at `position`.
//
// Requires: `text` is valid UTF-8 and a character begins at `position`.
uint32_t CodeAt(absl::string_view text, size_t position);

// Where the character before `position` begins.
//
// Requires: `text` is valid UTF-8 and 0 < position <= text.size().
size_t PreviousPosition(absl::string_view text, size_t position);

// Where the first byte stands that does not belong to valid UTF-8; text.size() if there is none.
size_t FirstInvalidByte(absl::string_view text);

// Appends to `text` what `bytes` say, U+FFFD for each part that is not UTF-8 (the maximal subparts
// of Unicode chapter 3.9, as other decoders do it), and takes what was used off `bytes`. A
// character that `bytes` begin but do not finish stays there, unless they are the last.
//
// Returns: false if a part was not UTF-8.
bool AppendLossy(std::string& bytes, bool last, std::string& text);

// Unicode's White_Space.
bool IsWhiteSpace(uint32_t code);
// General category N: digits of every script, Roman numerals, fractions.
bool IsNumeric(uint32_t code);
// General category P, and the ASCII symbols that a keyboard calls punctuation.
bool IsPunctuation(uint32_t code);
// A regular expression's \w as Unicode TR 18 defines it: letters, marks, decimal digits,
// connectors.
bool IsWordCharacter(uint32_t code);
// General category M.
bool IsMark(uint32_t code);

}  // namespace nibble
