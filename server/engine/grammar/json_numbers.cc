#include "server/engine/grammar/json_numbers.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/engine/grammar/grammar_limits.h"

namespace nibble {
namespace {

GrammarNode Digit(GrammarBuilder& builder, GrammarNode from, char first, char last) {
  return builder.Range(from, static_cast<uint8_t>(first), static_cast<uint8_t>(last));
}

GrammarNode AnyDigits(GrammarBuilder& builder, GrammarNode from, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    from = Digit(builder, from, '0', '9');
  }
  return from;
}

// From `least` to `most` digits, joined at `to`.
void AddDigits(GrammarBuilder& builder, GrammarNode from, int least, int most, GrammarNode to) {
  for (int count = 0; count <= most; ++count) {
    if (count >= least) {
      builder.AddEmpty(from, to);
    }
    if (count < most) {
      from = Digit(builder, from, '0', '9');
    }
  }
}

// Numbers of as many digits as `low` that are not below it; the same for AtMost.
void AddAtLeast(GrammarBuilder& builder, GrammarNode from, const std::string& low, size_t begin,
                GrammarNode to) {
  for (size_t i = begin; i < low.size(); ++i) {
    if (low[i] < '9') {
      const GrammarNode above = Digit(builder, from, static_cast<char>(low[i] + 1), '9');
      builder.AddEmpty(AnyDigits(builder, above, low.size() - i - 1), to);
    }
    from = Digit(builder, from, low[i], low[i]);
  }
  builder.AddEmpty(from, to);
}

void AddAtMost(GrammarBuilder& builder, GrammarNode from, const std::string& high, size_t begin,
               GrammarNode to) {
  for (size_t i = begin; i < high.size(); ++i) {
    if (high[i] > '0') {
      const GrammarNode below = Digit(builder, from, '0', static_cast<char>(high[i] - 1));
      builder.AddEmpty(AnyDigits(builder, below, high.size() - i - 1), to);
    }
    from = Digit(builder, from, high[i], high[i]);
  }
  builder.AddEmpty(from, to);
}

// Requires: `low` and `high` have the same number of digits, low <= high.
void AddBetween(GrammarBuilder& builder, GrammarNode from, const std::string& low,
                const std::string& high, GrammarNode to) {
  size_t i = 0;
  while (i < low.size() && low[i] == high[i]) {
    from = Digit(builder, from, low[i], low[i]);
    ++i;
  }
  if (i == low.size()) {
    builder.AddEmpty(from, to);
    return;
  }
  if (low[i] + 1 < high[i]) {
    const GrammarNode between =
        Digit(builder, from, static_cast<char>(low[i] + 1), static_cast<char>(high[i] - 1));
    builder.AddEmpty(AnyDigits(builder, between, low.size() - i - 1), to);
  }
  AddAtLeast(builder, Digit(builder, from, low[i], low[i]), low, i + 1, to);
  AddAtMost(builder, Digit(builder, from, high[i], high[i]), high, i + 1, to);
}

// Requires: 0 <= least.
void AddMagnitude(GrammarBuilder& builder, GrammarNode from, int64_t least, int64_t most,
                  GrammarNode to) {
  int64_t first = 0;  // The range of numbers with as many digits.
  int64_t last = 9;
  for (int digits = 1; digits <= kIntegerDigitsMax; ++digits) {
    const int64_t low = std::max(first, least);
    const int64_t high = std::min(last, most);
    if (low <= high) {
      AddBetween(builder, from, absl::StrCat(low), absl::StrCat(high), to);
    }
    if (digits < kIntegerDigitsMax) {
      first = last + 1;
      last = last * 10 + 9;
    }
  }
}

}  // namespace

GrammarNode AddInteger(GrammarBuilder& builder, GrammarNode from, int64_t least, int64_t most) {
  const GrammarNode to = builder.AddNode();
  AddMagnitude(builder, from, std::max<int64_t>(least, 0), most, to);
  if (least < 0) {
    AddMagnitude(builder, builder.Literal(from, "-"), std::max<int64_t>(-most, 1), -least, to);
  }
  return to;
}

GrammarNode AddNumber(GrammarBuilder& builder, GrammarNode from) {
  const GrammarNode magnitude = builder.Literal(from, "-");
  builder.AddEmpty(from, magnitude);
  const GrammarNode whole = builder.AddNode();
  builder.AddBytes(magnitude, '0', '0', whole);
  AddDigits(builder, Digit(builder, magnitude, '1', '9'), 0, kIntegerDigitsMax - 1, whole);
  const GrammarNode with_fraction = builder.AddNode();
  builder.AddEmpty(whole, with_fraction);
  AddDigits(builder, builder.Literal(whole, "."), 1, kFractionDigitsMax, with_fraction);
  const GrammarNode to = builder.AddNode();
  builder.AddEmpty(with_fraction, to);
  const GrammarNode sign = builder.AddNode();
  for (const uint8_t letter : {'e', 'E'}) {
    builder.AddBytes(with_fraction, letter, letter, sign);
  }
  const GrammarNode exponent = builder.AddNode();
  builder.AddEmpty(sign, exponent);
  builder.AddBytes(sign, '+', '+', exponent);
  builder.AddBytes(sign, '-', '-', exponent);
  AddDigits(builder, exponent, 1, kExponentDigitsMax, to);
  return to;
}

}  // namespace nibble
