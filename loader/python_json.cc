#include "loader/python_json.h"

#include <array>
#include <charconv>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace nibble {
namespace {

// Python's repr of a float turns to exponents outside of 1e-4 to 1e16.
constexpr int kExponentMin = -4;
constexpr int kExponentEnd = 16;

// A number as digits and a power of ten: d.ddd * 10^exponent.
struct Decimal {
  std::string digits;
  int exponent = 0;
};

Decimal ShortestDecimal(double magnitude) {
  std::array<char, 32> text;  // Of a double at most "1.2345678901234567e-308".
  const auto written = std::to_chars(text.data(), text.data() + text.size(), magnitude,
                                     std::chars_format::scientific);
  const absl::string_view whole(text.data(), static_cast<size_t>(written.ptr - text.data()));
  const size_t e = whole.find('e');
  Decimal decimal;
  for (const char c : whole.substr(0, e)) {
    if (c != '.') {
      decimal.digits += c;
    }
  }
  // Always there, with its sign, and in range.
  static_cast<void>(absl::SimpleAtoi(whole.substr(e + 1), &decimal.exponent));
  return decimal;
}

}  // namespace

void AppendJsonString(std::string& json, absl::string_view text) {
  json += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppend(&json, "\\u", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad4));
    } else {
      json += c;
    }
  }
  json += '"';
}

std::string PythonNumber(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  const absl::string_view sign = std::signbit(value) ? "-" : "";
  if (std::isinf(value)) {
    return absl::StrCat(sign, "Infinity");
  }
  const Decimal decimal = ShortestDecimal(std::abs(value));
  const std::string& digits = decimal.digits;
  if (decimal.exponent < kExponentMin || decimal.exponent >= kExponentEnd) {
    const absl::string_view point = digits.size() > 1 ? "." : "";
    return absl::StrCat(sign, digits.substr(0, 1), point, digits.substr(1),
                        absl::StrFormat("e%+03d", decimal.exponent));
  }
  if (decimal.exponent < 0) {
    const auto zeros = static_cast<size_t>(-decimal.exponent - 1);
    return absl::StrCat(sign, "0.", std::string(zeros, '0'), digits);
  }
  const auto whole = static_cast<size_t>(decimal.exponent) + 1;
  if (digits.size() <= whole) {
    return absl::StrCat(sign, digits, std::string(whole - digits.size(), '0'), ".0");
  }
  return absl::StrCat(sign, digits.substr(0, whole), ".", digits.substr(whole));
}

}  // namespace nibble
