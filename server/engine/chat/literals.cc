#include "server/engine/chat/literals.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

int DigitOf(char c) {
  if (absl::ascii_isdigit(static_cast<unsigned char>(c))) {
    return c - '0';
  }
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
}

// Digits of `base` from `position`, with single underscores between them (and before the first one
// behind a prefix). Returns where they end.
size_t SkipDigits(absl::string_view text, size_t position, int base, bool underscore_first) {
  const auto is_digit = [&](size_t at) { return at < text.size() && DigitOf(text[at]) < base; };
  if (underscore_first && position < text.size() && text[position] == '_' &&
      is_digit(position + 1)) {
    ++position;
  }
  if (!is_digit(position)) {
    return position;
  }
  while (is_digit(position) ||
         (position < text.size() && text[position] == '_' && is_digit(position + 1))) {
    ++position;
  }
  return position;
}

int BaseOf(absl::string_view text) {
  if (text.size() < 3 || text[0] != '0') {
    return 10;
  }
  switch (absl::ascii_tolower(static_cast<unsigned char>(text[1]))) {
    case 'b':
      return 2;
    case 'o':
      return 8;
    case 'x':
      return 16;
    default:
      return 10;
  }
}

size_t SkipExponent(absl::string_view text, size_t position) {
  if (position >= text.size() || (text[position] != 'e' && text[position] != 'E')) {
    return position;
  }
  size_t digits = position + 1;
  if (digits < text.size() && (text[digits] == '+' || text[digits] == '-')) {
    ++digits;
  }
  const size_t end = SkipDigits(text, digits, 10, false);
  return end == digits ? position : end;
}

bool AppendHexEscape(absl::string_view text, size_t& position, size_t digits, std::string& out) {
  if (text.size() - position < digits) {
    return false;
  }
  uint32_t code_point = 0;
  for (size_t i = 0; i < digits; ++i) {
    const int digit = DigitOf(text[position + i]);
    if (digit >= 16) {
      return false;
    }
    code_point = code_point << 4 | static_cast<uint32_t>(digit);
  }
  position += digits;
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF)) {
    return false;
  }
  AppendCodePoint(out, code_point);
  return true;
}

void AppendOctalEscape(absl::string_view text, size_t& position, std::string& out) {
  uint32_t code_point = 0;
  for (int i = 0; i < 3 && position < text.size() && DigitOf(text[position]) < 8; ++i) {
    code_point = code_point * 8 + static_cast<uint32_t>(DigitOf(text[position++]));
  }
  AppendCodePoint(out, code_point);
}

// What a backslash and this letter stand for; 0 if nothing.
char SimpleEscape(char c) {
  switch (c) {
    case '\\':
    case '\'':
    case '"':
      return c;
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'v':
      return '\v';
    default:
      return 0;
  }
}

// Resolves the escape whose letter is at `position`.
bool AppendEscaped(absl::string_view text, size_t& position, std::string& out) {
  const char c = text[position];
  if (const char simple = SimpleEscape(c); simple != 0) {
    out += simple;
    ++position;
    return true;
  }
  if (c == '\n') {
    ++position;
    return true;
  }
  if (DigitOf(c) < 8) {
    AppendOctalEscape(text, position, out);
    return true;
  }
  if (c == 'x' || c == 'u' || c == 'U') {
    ++position;
    return AppendHexEscape(text, position, c == 'x' ? 2 : (c == 'u' ? 4 : 8), out);
  }
  if (c == 'N') {
    return false;  // Names of characters: no template was seen with one.
  }
  out += '\\';
  return true;
}

}  // namespace

size_t NumberLength(absl::string_view text, bool may_be_float, bool& is_float) {
  is_float = false;
  const int base = BaseOf(text);
  if (base != 10) {
    const size_t end = SkipDigits(text, 2, base, true);
    return end == 2 ? 1 : end;
  }
  const size_t whole = SkipDigits(text, 0, 10, false);
  // Of an integer a zero at the front is followed by zeros alone.
  const size_t integer = text.empty() || text[0] != '0' ? whole : SkipDigits(text, 0, 1, false);
  if (whole == 0 || !may_be_float) {
    return integer;
  }
  size_t end = whole;
  if (end < text.size() && text[end] == '.') {
    const size_t fraction = SkipDigits(text, end + 1, 10, false);
    end = fraction == end + 1 ? end : fraction;
  }
  end = SkipExponent(text, end);
  is_float = end > whole;
  return is_float ? end : integer;
}

std::optional<int64_t> ParseIntegerLiteral(absl::string_view text) {
  const int base = BaseOf(text);
  int64_t value = 0;
  for (const char c : base == 10 ? text : text.substr(2)) {
    if (c == '_') {
      continue;
    }
    if (__builtin_mul_overflow(value, base, &value) ||
        __builtin_add_overflow(value, DigitOf(c), &value)) {
      return std::nullopt;
    }
  }
  return value;
}

double ParseFloatLiteral(absl::string_view text) {
  double value = 0;
  // Always a number; beyond a double's range it is infinity, as in Python.
  static_cast<void>(absl::SimpleAtod(absl::StrReplaceAll(text, {{"_", ""}}), &value));
  return value;
}

std::optional<std::string> UnescapeString(absl::string_view text) {
  std::string out;
  for (size_t position = 0; position < text.size();) {
    if (text[position] != '\\') {
      out += text[position++];
    } else if (++position == text.size() || !AppendEscaped(text, position, out)) {
      return std::nullopt;
    }
  }
  return out;
}

}  // namespace nibble::jinja
