// ByteLevel's alphabet: each byte has a printable character, so that a vocabulary of bytes can be
// written as text.
//
//   bytes 0x21-0x7E, 0xA1-0xAC, 0xAE-0xFF   the same code point
//   the other 68, in order                   U+0100, U+0101, ...   (space U+0120, newline U+010A)

#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

// Appends the characters of `bytes`.
void AppendByteLevel(absl::string_view bytes, std::string& text);

// Appends the bytes that `text` stands for; if one of its characters stands for none, `text`
// itself.
//
// Requires: `text` is valid UTF-8.
void AppendByteLevelBytes(absl::string_view text, std::string& bytes);

}  // namespace nibble
