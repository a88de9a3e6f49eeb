// Filters that make numbers.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/engine/chat/arithmetic.h"
#include "server/engine/chat/filters.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

constexpr double kIntegerEnd = 9223372036854775808.0;  // 2^63

// `text` less its white space, and underscores between digits; nothing where one is out of place.
std::optional<std::string> Digits(absl::string_view text) {
  text = StripRight(StripLeft(text));
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit = [&](size_t at) {
      return at < text.size() && absl::ascii_isalnum(static_cast<unsigned char>(text[at]));
    };
    if (text[i] == '_' && (i == 0 || !is_digit(i - 1) || !is_digit(i + 1))) {
      return std::nullopt;
    }
  }
  return absl::StrReplaceAll(text, {{"_", ""}});
}

std::optional<double> ParseFloat(absl::string_view text) {
  const std::optional<std::string> digits = Digits(text);
  double value = 0;
  if (!digits.has_value() || absl::StrContains(*digits, 'x') || absl::StrContains(*digits, 'X') ||
      !absl::SimpleAtod(*digits, &value)) {
    return std::nullopt;
  }
  return value;
}

// Nothing if it is no integer in this base.
std::optional<int64_t> ParseInteger(Run& run, absl::string_view text, int64_t base) {
  const std::optional<std::string> digits = Digits(text);
  if (!digits.has_value()) {
    return std::nullopt;
  }
  absl::string_view left = *digits;
  const bool negative = absl::StartsWith(left, "-");
  if (negative || absl::StartsWith(left, "+")) {
    left.remove_prefix(1);
  }
  const absl::string_view prefix =
      base == 16 ? "0x" : (base == 8 ? "0o" : (base == 2 ? "0b" : "?"));
  if (absl::StartsWithIgnoreCase(left, prefix)) {
    left.remove_prefix(2);
  }
  int64_t value = 0;
  for (const char c : left) {
    const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
    const int64_t digit = absl::ascii_isdigit(static_cast<unsigned char>(c))   ? c - '0'
                          : absl::ascii_isalpha(static_cast<unsigned char>(c)) ? lower - 'a' + 10
                                                                               : base;
    if (digit >= base) {
      return std::nullopt;
    }
    if (__builtin_mul_overflow(value, base, &value) ||
        __builtin_sub_overflow(value, digit, &value)) {  // Downwards: there is one more.
      run.Fail("an integer has more than 63 bits");
      return std::nullopt;
    }
  }
  if (left.empty()) {
    return std::nullopt;
  }
  if (!negative && value == INT64_MIN) {
    run.Fail("an integer has more than 63 bits");
    return std::nullopt;
  }
  return negative ? value : -value;
}

std::optional<int64_t> Truncated(Run& run, double value) {
  if (!std::isfinite(value)) {
    return std::nullopt;
  }
  if (!(value < kIntegerEnd && value >= -kIntegerEnd)) {
    run.Fail("an integer has more than 63 bits");
    return std::nullopt;
  }
  return static_cast<int64_t>(value);
}

Value Int(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "int", arguments, {"default", "base"});
  const Value otherwise = bound.Get(0) == nullptr ? Value(int64_t{0}) : bound.Any(0);
  const int64_t base = bound.Integer(1, 10);
  if (base < 2 || base > 36) {
    run.Fail("int wants a base from 2 to 36");
    return Value();
  }
  if (input.is_integer()) {
    return Value(input.integer());
  }
  std::optional<int64_t> value;
  if (input.is_float()) {
    value = Truncated(run, input.number());
  } else if (input.text() != nullptr) {
    run.StepLookups(input.text()->bytes.size());
    value = ParseInteger(run, input.text()->bytes, base);
    if (!value.has_value()) {
      const std::optional<double> number = ParseFloat(input.text()->bytes);
      value = number.has_value() ? Truncated(run, *number) : std::nullopt;
    }
  } else if (input.is_undefined()) {
    run.Fail(input.reason());
  }
  return value.has_value() ? Value(*value) : otherwise;
}

Value Float(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "float", arguments, {"default"});
  if (input.is_number()) {
    return Value(input.number());
  }
  std::optional<double> value;
  if (input.text() != nullptr) {
    run.StepLookups(input.text()->bytes.size());
    value = ParseFloat(input.text()->bytes);
  } else if (input.is_undefined()) {
    run.Fail(input.reason());
  }
  return value.has_value() ? Value(*value) : (bound.Get(0) == nullptr ? Value(0.0) : bound.Any(0));
}

Value Absolute(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.is_number() && !std::signbit(input.number())) {
    return input.is_bool() ? Value(input.integer()) : input;
  }
  return Negate(interpreter.run(), input);
}

// Half to even, of the decimal expansion of what the double really is, as Python rounds.
double RoundedTo(double value, int64_t digits) {
  constexpr int64_t kDigitsMax = 330;  // A double has no more behind its point that matter.
  if (!std::isfinite(value) || digits > kDigitsMax) {
    return value;
  }
  if (digits < 0) {
    const double unit = std::pow(10.0, static_cast<double>(-std::max(digits, -kDigitsMax)));
    return std::isfinite(unit) ? std::nearbyint(value / unit) * unit : 0.0 * value;
  }
  std::array<char, 700> text;
  std::snprintf(text.data(), text.size(), "%.*f", static_cast<int>(digits), value);
  double rounded = value;
  static_cast<void>(absl::SimpleAtod(text.data(), &rounded));
  return rounded;
}

Value Round(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "round", arguments, {"precision", "method"});
  const int64_t precision = bound.Integer(0, 0);
  const std::string method = bound.Text(1, "common");
  if (!input.is_number()) {
    run.Fail(input.is_undefined() ? std::string(input.reason())
                                  : absl::StrCat("a '", input.TypeName(), "' cannot be rounded"));
    return Value();
  }
  if (method == "common") {
    if (!input.is_integer()) {
      return Value(RoundedTo(input.number(), precision));
    }
    return precision >= 0 ? Value(input.integer())
                          : Value(static_cast<int64_t>(RoundedTo(input.number(), precision)));
  }
  if (method != "ceil" && method != "floor") {
    run.Fail("round wants 'common', 'ceil' or 'floor'");
    return Value();
  }
  const double unit =
      std::pow(10.0, static_cast<double>(std::clamp<int64_t>(precision, -400, 400)));
  const double scaled = input.number() * unit;
  if (!std::isfinite(scaled) || unit == 0) {
    run.Fail("a number is too large to be rounded");
    return Value();
  }
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

}  // namespace

FilterFunction FindNumberFilter(absl::string_view name) {
  static constexpr std::array<std::pair<absl::string_view, FilterFunction>, 4> kFilters = {
      {{"int", Int}, {"float", Float}, {"abs", Absolute}, {"round", Round}}};
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(),
                                   [&](const auto& filter) { return filter.first == name; });
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
