// Strings as Python sees them: UTF-8 here, counted and cut by code points.

#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

// Everywhere `text` is UTF-8, and positions lie on the first byte of a code point.

namespace nibble::jinja {

int64_t CodePointCount(absl::string_view text);

// The code point at `position`, which moves behind it. Requires: position < text.size().
char32_t NextCodePoint(absl::string_view text, size_t& position);

// Appends it as UTF-8. Requires: a code point that is no surrogate.
void AppendCodePoint(std::string& text, char32_t code_point);

// The byte where the code point `index` begins; text.size() if there are no more.
size_t ByteAt(absl::string_view text, int64_t index);

// str.isspace(), isprintable() and so on, of one code point.
bool IsSpace(char32_t code_point);
bool IsPrintable(char32_t code_point);
bool IsLetter(char32_t code_point);
bool IsDigit(char32_t code_point);    // A decimal digit of any script.
bool IsNumeric(char32_t code_point);  // Fractions and Roman numerals too.
bool IsUpper(char32_t code_point);
bool IsLower(char32_t code_point);
// What regular expressions call \w.
bool IsWordCharacter(char32_t code_point);

std::string ToUpper(absl::string_view text);
std::string ToLower(absl::string_view text);
// The first character upper, the rest lower.
std::string Capitalize(absl::string_view text);
// str.title(): each run of letters capitalized.
std::string TitleCase(absl::string_view text);
std::string SwapCase(absl::string_view text);

// Without leading or trailing characters of `characters`, or white space where it is null.
absl::string_view StripLeft(absl::string_view text, const absl::string_view* characters = nullptr);
absl::string_view StripRight(absl::string_view text, const absl::string_view* characters = nullptr);

}  // namespace nibble::jinja
