#include "server/engine/chat/arithmetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/python_text.h"
#include "server/engine/chat/text_format.h"

namespace nibble::jinja {
namespace {

absl::string_view SymbolOf(Arithmetic op) {
  static constexpr std::array<absl::string_view, 7> kSymbols = {"+",  "-", "*", "/",
                                                                "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

Value Overflow(Run& run) {
  run.Fail("an integer has more than 63 bits");
  return Value();
}

// Towards minus infinity, as Python divides.
Value FloorDivide(Run& run, int64_t left, int64_t right) {
  if (right == -1) {  // INT64_MIN / -1 overflows.
    return left == INT64_MIN ? Overflow(run) : Value(-left);
  }
  const int64_t quotient = left / right;
  return Value(left % right != 0 && (left < 0) != (right < 0) ? quotient - 1 : quotient);
}

// Has the sign of the divisor.
Value Modulo(int64_t left, int64_t right) {
  if (right == -1) {
    return Value(int64_t{0});
  }
  const int64_t rest = left % right;
  return Value(rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest);
}

Value Modulo(double left, double right) {
  const double rest = std::fmod(left, right);
  return Value(rest != 0 && (rest < 0) != (right < 0)
                   ? rest + right
                   : (rest == 0 ? std::copysign(0.0, right) : rest));
}

Value Power(Run& run, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) {
      run.Fail("0 has no negative powers");
    }
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  // All others overflow at 63 already.
  if (base == 0 || base == 1 || base == -1) {
    return Value(exponent == 0 ? 1 : (base == -1 && exponent % 2 == 0 ? 1 : base));
  }
  for (int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) {
      return Overflow(run);
    }
  }
  return Value(result);
}

Value CalculateIntegers(Run& run, Arithmetic op, int64_t left, int64_t right) {
  int64_t result = 0;
  bool overflows = false;
  switch (op) {
    case Arithmetic::kAdd:
      overflows = __builtin_add_overflow(left, right, &result);
      break;
    case Arithmetic::kSubtract:
      overflows = __builtin_sub_overflow(left, right, &result);
      break;
    case Arithmetic::kMultiply:
      overflows = __builtin_mul_overflow(left, right, &result);
      break;
    case Arithmetic::kFloorDivide:
      return FloorDivide(run, left, right);
    case Arithmetic::kModulo:
      return Modulo(left, right);
    case Arithmetic::kPower:
      return Power(run, left, right);
    case Arithmetic::kDivide:
      return Value(static_cast<double>(left) / static_cast<double>(right));
  }
  return overflows ? Overflow(run) : Value(result);
}

Value CalculateFloats(Run& run, Arithmetic op, double left, double right) {
  switch (op) {
    case Arithmetic::kAdd:
      return Value(left + right);
    case Arithmetic::kSubtract:
      return Value(left - right);
    case Arithmetic::kMultiply:
      return Value(left * right);
    case Arithmetic::kDivide:
      return Value(left / right);
    case Arithmetic::kFloorDivide:
      return Value(std::floor(left / right));
    case Arithmetic::kModulo:
      return Modulo(left, right);
    case Arithmetic::kPower:
      break;
  }
  const double power = std::pow(left, right);
  if (std::isnan(power) && !std::isnan(left) && !std::isnan(right)) {
    run.Fail("a power has no real value");
  } else if (std::isinf(power) && !std::isinf(left) && !std::isinf(right)) {
    run.Fail("a power is too large for a float");
  }
  return Value(power);
}

Value CalculateNumbers(Run& run, Arithmetic op, const Value& left, const Value& right) {
  const bool divides =
      op == Arithmetic::kDivide || op == Arithmetic::kFloorDivide || op == Arithmetic::kModulo;
  if (divides && right.number() == 0) {
    run.Fail("division by zero");
    return Value();
  }
  return left.is_integer() && right.is_integer()
             ? CalculateIntegers(run, op, left.integer(), right.integer())
             : CalculateFloats(run, op, left.number(), right.number());
}

// Markup escapes what it is added to.
Value JoinTexts(Run& run, const Text& left, const Text& right) {
  const auto bytes = static_cast<int64_t>(left.bytes.size() + right.bytes.size());
  if (!run.MayMake(bytes)) {
    return Value();
  }
  if (left.is_markup == right.is_markup) {
    return MakeText(&run, absl::StrCat(left.bytes, right.bytes), left.is_markup);
  }
  const std::string escaped = EscapedForHtml(run, left.is_markup ? right.bytes : left.bytes);
  return MakeText(
      &run, left.is_markup ? absl::StrCat(left.bytes, escaped) : absl::StrCat(escaped, right.bytes),
      true);
}

// Null if they are not of the same kind.
std::optional<Value> Join(Run& run, const Value& left, const Value& right) {
  if (left.text() != nullptr && right.text() != nullptr) {
    return JoinTexts(run, *left.text(), *right.text());
  }
  const auto both = [&](Flavor flavor) { return left.Is(flavor) && right.Is(flavor); };
  if (!both(Flavor::kList) && !both(Flavor::kTuple)) {
    return std::nullopt;
  }
  std::vector<Value> items = left.sequence()->items;
  const auto& more = right.sequence()->items;
  if (!run.StepLookups(items.size() + more.size()) ||
      !run.MayMake(static_cast<int64_t>((items.size() + more.size()) * sizeof(Value)))) {
    return Value();
  }
  items.insert(items.end(), more.begin(), more.end());
  return MakeSequence(&run, left.sequence()->flavor, std::move(items));
}

std::optional<Value> Repeat(Run& run, const Value& value, const Value& times) {
  const bool is_text = value.text() != nullptr;
  if (!times.is_integer() || !(is_text || value.Is(Flavor::kList) || value.Is(Flavor::kTuple))) {
    return std::nullopt;
  }
  const int64_t count = std::max<int64_t>(times.integer(), 0);
  const auto bytes = static_cast<int64_t>(is_text ? value.text()->bytes.size()
                                                  : value.sequence()->items.size() * sizeof(Value));
  int64_t all_bytes = 0;
  if (__builtin_mul_overflow(bytes, count, &all_bytes) || !run.MayMake(all_bytes)) {
    run.MayMake(INT64_MAX);  // For its error.
    return Value();
  }
  if (is_text) {
    std::string text;
    text.reserve(static_cast<size_t>(all_bytes));
    // Doubled, so that many copies of a short string are not made one by one.
    text = all_bytes > 0 ? value.text()->bytes : "";
    while (text.size() < static_cast<size_t>(all_bytes)) {
      text.append(text, 0, std::min(text.size(), static_cast<size_t>(all_bytes) - text.size()));
    }
    return MakeText(&run, std::move(text), value.text()->is_markup);
  }
  std::vector<Value> items;
  const auto& more = value.sequence()->items;
  for (int64_t i = 0; !more.empty() && i < count && run.Step(); ++i) {
    items.insert(items.end(), more.begin(), more.end());
  }
  return MakeSequence(&run, value.sequence()->flavor, std::move(items));
}

std::optional<Value> CalculateSequences(Run& run, Arithmetic op, const Value& left,
                                        const Value& right) {
  if (op == Arithmetic::kAdd) {
    return Join(run, left, right);
  }
  if (op == Arithmetic::kMultiply) {
    return left.is_integer() ? Repeat(run, right, left) : Repeat(run, left, right);
  }
  if (op == Arithmetic::kModulo && left.text() != nullptr) {
    return FormatPercent(run, left.text()->bytes, right);
  }
  return std::nullopt;
}

}  // namespace

Value Calculate(Run& run, Arithmetic op, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    return CalculateNumbers(run, op, left, right);
  }
  const Value& undefined = left.is_undefined() ? left : right;
  if (undefined.is_undefined() && !(op == Arithmetic::kModulo && left.text() != nullptr)) {
    run.Fail(undefined.reason());
    return Value();
  }
  std::optional<Value> result = CalculateSequences(run, op, left, right);
  if (!result.has_value()) {
    run.Fail(absl::StrCat("a '", left.TypeName(), "' and a '", right.TypeName(),
                          "' have no operator ", SymbolOf(op)));
    return Value();
  }
  return *std::move(result);
}

Value Negate(Run& run, const Value& value) {
  if (value.is_integer()) {
    return value.integer() == INT64_MIN ? Overflow(run) : Value(-value.integer());
  }
  if (value.is_float()) {
    return Value(-value.number());
  }
  run.Fail(value.is_undefined() ? std::string(value.reason())
                                : absl::StrCat("a '", value.TypeName(), "' has no negative"));
  return Value();
}

}  // namespace nibble::jinja
