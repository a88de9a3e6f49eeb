#include "server/engine/grammar/decimal_range.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "server/engine/grammar/grammar_limits.h"

namespace nibble {
namespace {

char DigitAt(absl::string_view digits, int64_t place) {
  return place < std::ssize(digits) ? digits[static_cast<size_t>(place)] : '0';
}

// Draws magnitudes. On the way the digits so far are those of a bound ("tight") or decide already
// that it is kept: four nodes for each place.
class MagnitudeDrawing {
 public:
  // `least` is not negative; `most` is none, or not negative.
  MagnitudeDrawing(GrammarBuilder& builder, DecimalBound least, std::optional<DecimalBound> most)
      : builder_(builder), least_(std::move(least)), most_(std::move(most)) {}

  GrammarNode Draw(GrammarNode from) {
    end_ = builder_.AddNode();
    for (int digits = 1; digits <= kIntegerDigitsMax; ++digits) {
      const auto least_digits = std::ssize(least_.value.whole);
      if (digits < least_digits || (most_ && digits > std::ssize(most_->value.whole))) {
        continue;
      }
      digits_ = digits;
      nodes_.clear();
      const bool low_tight = digits == least_digits;
      const bool high_tight = most_ && digits == std::ssize(most_->value.whole);
      builder_.AddEmpty(from, NodeAt(0, low_tight, high_tight));
      while (!pending_.empty() && builder_.ok()) {
        const auto [place, low, high] = pending_.back();
        pending_.pop_back();
        AddArrows(place, low, high);
      }
    }
    return end_;
  }

 private:
  // After `place` digits, of which digits_ stand before the point. Once no bound is tight,
  // fractions of all lengths are the same.
  GrammarNode NodeAt(int64_t place, bool low_tight, bool high_tight) {
    const bool is_free = !low_tight && !high_tight && place > digits_;
    auto& nodes = is_free ? free_fractions_ : nodes_;
    const auto key = std::tuple(is_free ? place - digits_ : place, low_tight, high_tight);
    const auto [found, is_new] = nodes.try_emplace(key, 0);
    if (is_new) {
      found->second = builder_.AddNode();
      pending_.emplace_back(place, low_tight, high_tight);
    }
    return found->second;
  }

  void AddArrows(int64_t place, bool low_tight, bool high_tight) {
    const GrammarNode node = NodeAt(place, low_tight, high_tight);
    const int64_t fraction_place = place - digits_;
    if (fraction_place >= 0 && MayEnd(fraction_place, low_tight, high_tight)) {
      builder_.AddEmpty(node, end_);
    }
    if (fraction_place >= kFractionDigitsMax) {
      return;
    }
    const bool before_point = fraction_place < 0;
    const GrammarNode from = fraction_place == 0 ? builder_.Literal(node, ".") : node;
    const char least_digit = before_point ? DigitAt(least_.value.whole, place)
                                          : DigitAt(least_.value.fraction, fraction_place);
    char most_digit = '9';
    if (high_tight) {
      most_digit = before_point ? DigitAt(most_->value.whole, place)
                                : DigitAt(most_->value.fraction, fraction_place);
    }
    const char first = low_tight ? least_digit : place == 0 && digits_ > 1 ? '1' : '0';
    for (char digit = first; digit <= most_digit; ++digit) {
      const auto byte = static_cast<uint8_t>(digit);
      builder_.AddBytes(
          from, byte, byte,
          NodeAt(place + 1, low_tight && digit == least_digit, high_tight && digit == most_digit));
    }
  }

  bool MayEnd(int64_t fraction_place, bool low_tight, bool high_tight) const {
    // The digits that are not written are zeros; those of a bound end with another digit.
    const bool keeps_least =
        !low_tight || (least_.is_included && fraction_place >= std::ssize(least_.value.fraction));
    const bool keeps_most =
        !high_tight || most_->is_included || fraction_place < std::ssize(most_->value.fraction);
    return keeps_least && keeps_most;
  }

  using Nodes = std::map<std::tuple<int64_t, bool, bool>, GrammarNode>;

  GrammarBuilder& builder_;
  const DecimalBound least_;
  const std::optional<DecimalBound> most_;
  GrammarNode end_ = 0;
  int64_t digits_ = 0;  // Before the point, of the numbers that are being drawn.
  Nodes nodes_;
  Nodes free_fractions_;
  std::vector<std::tuple<int64_t, bool, bool>> pending_;
};

}  // namespace

std::optional<Decimal> ReadDecimal(absl::string_view text) {
  Decimal result{.is_negative = !text.empty() && text[0] == '-', .whole = "", .fraction = ""};
  std::string digits;
  int64_t point = -1;  // Digits before the point.
  int exponent = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] >= '0' && text[i] <= '9') {
      digits.push_back(text[i]);
    } else if (text[i] == '.') {
      point = std::ssize(digits);
    } else if (text[i] == 'e' || text[i] == 'E') {
      if (!absl::SimpleAtoi(text.substr(i + 1), &exponent) || exponent > 400 || exponent < -400) {
        return std::nullopt;
      }
      break;
    }
  }
  point = (point < 0 ? std::ssize(digits) : point) + exponent;
  for (int64_t i = std::min<int64_t>(0, point); i < std::max(point, std::ssize(digits)); ++i) {
    (i < point ? result.whole : result.fraction).push_back(i < 0 ? '0' : DigitAt(digits, i));
  }
  result.whole.erase(0, std::min(result.whole.find_first_not_of('0'), result.whole.size()));
  result.fraction.erase(result.fraction.find_last_not_of('0') + 1);
  if (result.whole.empty()) {
    result.whole = "0";
    result.is_negative = result.is_negative && !result.fraction.empty();
  }
  if (result.whole.size() > kIntegerDigitsMax || result.fraction.size() > kFractionDigitsMax) {
    return std::nullopt;
  }
  return result;
}

GrammarNode AddDecimal(GrammarBuilder& builder, GrammarNode from,
                       const std::optional<DecimalBound>& least,
                       const std::optional<DecimalBound>& most) {
  const GrammarNode to = builder.AddNode();
  if (!most || !most->value.is_negative) {
    const bool is_least = least && !least->value.is_negative;
    MagnitudeDrawing drawing(builder, is_least ? *least : DecimalBound{}, most);
    builder.AddEmpty(drawing.Draw(from), to);
  }
  if (!least || least->value.is_negative) {
    // Zero is written without a sign.
    const bool is_most = most && most->value.is_negative;
    const DecimalBound nearest = is_most ? *most : DecimalBound{.value = {}, .is_included = false};
    MagnitudeDrawing drawing(builder, nearest, least);
    builder.AddEmpty(drawing.Draw(builder.Literal(from, "-")), to);
  }
  return to;
}

}  // namespace nibble
