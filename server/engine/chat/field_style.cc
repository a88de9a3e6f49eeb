// What both ways of formatting share: numbers and padding.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/chat/python_text.h"
#include "server/engine/chat/text_format.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

// A double has at most 309 digits before its point and 1074 behind it.
constexpr int64_t kPrecisionMax = 1100;

std::string DigitsInBase(uint64_t magnitude, uint64_t base) {
  std::string digits;
  do {
    digits += "0123456789abcdef"[magnitude % base];
    magnitude /= base;
  } while (magnitude > 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string WithThousands(absl::string_view digits) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string result;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) {
      result += ',';
    }
    result += digits[i];
  }
  return absl::StrCat(result, digits.substr(whole));
}

std::string IntegerDigits(const Value& value, const FieldStyle& style) {
  const int64_t integer = value.integer();
  const uint64_t magnitude =
      integer < 0 ? -static_cast<uint64_t>(integer) : static_cast<uint64_t>(integer);
  const char type = absl::ascii_tolower(static_cast<unsigned char>(style.type));
  const uint64_t base = type == 'x' ? 16 : (type == 'o' ? 8 : (type == 'b' ? 2 : 10));
  std::string digits = DigitsInBase(magnitude, base);
  if (style.alternate && base != 10) {
    digits = absl::StrCat("0", absl::string_view(&type, 1), digits);
  }
  return style.type == 'X' ? absl::AsciiStrToUpper(digits) : digits;
}

std::string FloatDigits(Run& run, double magnitude, const FieldStyle& style) {
  if (style.type == 0 && style.precision < 0) {
    return FloatToText(magnitude);
  }
  if (style.precision > kPrecisionMax) {
    run.Fail("a number is formatted with too many digits");
    return "";
  }
  const char type = style.type == 0 ? 'g' : (style.type == '%' ? 'f' : style.type);
  const auto precision = static_cast<int>(style.precision < 0 ? 6 : style.precision);
  const std::array<char, 6> format = {'%', '.', '*', type, 0, 0};
  std::array<char, 2 * kPrecisionMax> text;
  const double scaled = style.type == '%' ? magnitude * 100 : magnitude;
  const int length = std::snprintf(text.data(), text.size(), format.data(), precision, scaled);
  return absl::StrCat(absl::string_view(text.data(), static_cast<size_t>(length)),
                      style.type == '%' ? "%" : "");
}

}  // namespace

std::string NumberInStyle(Run& run, const Value& value, const FieldStyle& style) {
  const bool as_float = value.is_float() || absl::StrContains("eEfFgG%", style.type);
  if (!as_float && !absl::StrContains(absl::string_view("dxXobn\0", 7), style.type)) {
    run.Fail(absl::StrCat("a number has no format '", absl::string_view(&style.type, 1), "'"));
    return "";
  }
  if (value.is_float() && !absl::StrContains(absl::string_view("eEfFgG%\0", 8), style.type)) {
    run.Fail("a float is formatted as an integer");
    return "";
  }
  const bool negative = as_float ? std::signbit(value.number()) : value.integer() < 0;
  std::string digits =
      as_float ? FloatDigits(run, std::abs(value.number()), style) : IntegerDigits(value, style);
  if (style.thousands) {
    digits = WithThousands(digits);
  }
  const absl::string_view sign = negative            ? "-"
                                 : style.sign == '+' ? "+"
                                 : style.sign == ' ' ? " "
                                                     : "";
  return absl::StrCat(sign, digits);
}

std::string Padded(Run& run, std::string text, const FieldStyle& style, char default_align) {
  const int64_t missing = style.width - CodePointCount(text);
  if (missing <= 0) {
    return text;
  }
  if (!run.MayMake(missing * static_cast<int64_t>(style.fill.size()))) {
    return "";
  }
  const char align = style.align == 0 ? default_align : style.align;
  const int64_t before = align == '<' ? 0 : (align == '^' ? missing / 2 : missing);
  std::string left;
  for (int64_t i = 0; i < before; ++i) {
    left += style.fill;
  }
  std::string right;
  for (int64_t i = before; i < missing; ++i) {
    right += style.fill;
  }
  const bool has_sign = align == '=' && !text.empty() && absl::StrContains("+- ", text[0]);
  return absl::StrCat(text.substr(0, has_sign ? 1 : 0), left, text.substr(has_sign ? 1 : 0), right);
}

}  // namespace nibble::jinja
