#include "server/command_line/byte_size.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace nibble {
namespace {

struct Unit {
  absl::string_view name;
  int64_t bytes;
};

constexpr std::array<Unit, 10> kUnits = {{
    {"", 1},
    {"B", 1},
    {"kB", 1'000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"TB", 1'000'000'000'000},
    {"KiB", int64_t{1} << 10},
    {"MiB", int64_t{1} << 20},
    {"GiB", int64_t{1} << 30},
    {"TiB", int64_t{1} << 40},
}};

// A decimal fraction has at most as many digits as an int64_t holds with room for one more.
constexpr size_t kFractionDigitsMax = 17;

absl::Status BadSize(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no size: ", why,
                   " (write a number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB)"));
}

absl::string_view TakeDigits(absl::string_view& text) {
  size_t count = 0;
  while (count < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[count]))) {
    ++count;
  }
  const absl::string_view digits = text.substr(0, count);
  text.remove_prefix(count);
  return digits;
}

// Returns: false if the digits do not fit.
bool ReadInteger(absl::string_view digits, int64_t& value) {
  value = 0;
  return digits.empty() ||
         std::from_chars(digits.data(), digits.data() + digits.size(), value).ec == std::errc();
}

const Unit* FindUnit(absl::string_view name) {
  for (const Unit& unit : kUnits) {
    if (unit.name == name) {
      return &unit;
    }
  }
  return nullptr;
}

// Three digits that matter, but all of a number without a unit.
std::string Scaled(int64_t bytes, int64_t step, const std::array<const char*, 5>& names) {
  double value = static_cast<double>(bytes);
  size_t index = 0;
  while (std::abs(value) >= static_cast<double>(step) && index + 1 < names.size()) {
    value /= static_cast<double>(step);
    ++index;
  }
  return index == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.2f %s", value, names[index]);
}

}  // namespace

absl::StatusOr<int64_t> ParseByteSize(absl::string_view text) {
  absl::string_view rest = absl::StripAsciiWhitespace(text);
  const absl::string_view whole_digits = TakeDigits(rest);
  absl::string_view fraction_digits;
  if (!rest.empty() && rest[0] == '.') {
    rest.remove_prefix(1);
    fraction_digits = TakeDigits(rest);
  }
  if (whole_digits.empty() && fraction_digits.empty()) {
    return BadSize(text, "it does not begin with a number");
  }
  const Unit* unit = FindUnit(absl::StripLeadingAsciiWhitespace(rest));
  if (unit == nullptr) {
    return BadSize(text, absl::StrCat("unknown unit '", absl::StripAsciiWhitespace(rest), "'"));
  }
  int64_t whole = 0;
  int64_t fraction = 0;
  int64_t bytes = 0;
  fraction_digits = fraction_digits.substr(0, kFractionDigitsMax);
  if (!ReadInteger(whole_digits, whole) || !ReadInteger(fraction_digits, fraction) ||
      __builtin_mul_overflow(whole, unit->bytes, &bytes)) {
    return BadSize(text, "it is larger than any memory");
  }
  const long double share = static_cast<long double>(fraction) /
                            std::pow(10.0L, static_cast<long double>(fraction_digits.size()));
  const auto rest_bytes =
      static_cast<int64_t>(share * static_cast<long double>(unit->bytes) + 1e-6L);
  if (__builtin_add_overflow(bytes, rest_bytes, &bytes)) {
    return BadSize(text, "it is larger than any memory");
  }
  return bytes;
}

absl::StatusOr<BudgetSize> ParseBudgetSize(absl::string_view text) {
  const absl::string_view stripped = absl::StripAsciiWhitespace(text);
  if (stripped.empty() || stripped.back() != '%') {
    absl::StatusOr<int64_t> bytes = ParseByteSize(stripped);
    if (!bytes.ok()) {
      return bytes.status();
    }
    return BudgetSize{.bytes = *bytes, .ratio = {}};
  }
  const absl::string_view number =
      absl::StripTrailingAsciiWhitespace(stripped.substr(0, stripped.size() - 1));
  double percent = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), percent,
                                            std::chars_format::fixed);
  if (error != std::errc() || end != number.data() + number.size() || !(percent > 0) ||
      percent > 100) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is no share of the device: expected over 0% and at most 100%"));
  }
  return BudgetSize{.bytes = {}, .ratio = percent / 100};
}

std::string FormatMemory(int64_t bytes) {
  return Scaled(bytes, 1024, {"B", "KiB", "MiB", "GiB", "TiB"});
}

std::string FormatData(int64_t bytes) { return Scaled(bytes, 1000, {"B", "kB", "MB", "GB", "TB"}); }

std::string FormatExact(int64_t number) {
  const std::string digits = absl::StrCat(number);
  const size_t first = number < 0 ? 1 : 0;
  std::string text;
  for (size_t index = 0; index < digits.size(); ++index) {
    if (index > first && (digits.size() - index) % 3 == 0) {
      text.push_back(',');
    }
    text.push_back(digits[index]);
  }
  return text;
}

}  // namespace nibble
