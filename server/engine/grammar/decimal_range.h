// Numbers between two bounds, digit by digit.

#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "server/engine/grammar/grammar_builder.h"

namespace nibble {

struct Decimal {
  bool is_negative = false;
  std::string whole = "0";  // No leading zero, unless it is all.
  std::string fraction;     // No trailing zero.
};

// Reads a number as JSON writes it.
//
// Requires: `text` is one.
// Returns: nothing if it has more than kIntegerDigitsMax digits before the point or
//   kFractionDigitsMax behind it.
std::optional<Decimal> ReadDecimal(absl::string_view text);

struct DecimalBound {
  Decimal value;
  bool is_included = true;
};

// Numbers without an exponent from `least` to `most`, of as many digits as AddNumber writes. A
// bound that is missing is none. Neither -0 nor -0.0 is written.
GrammarNode AddDecimal(GrammarBuilder& builder, GrammarNode from,
                       const std::optional<DecimalBound>& least,
                       const std::optional<DecimalBound>& most);

}  // namespace nibble
