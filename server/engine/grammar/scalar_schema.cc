// Strings and numbers within bounds.

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/grammar/decimal_range.h"
#include "server/engine/grammar/determinize.h"
#include "server/engine/grammar/grammar_limits.h"
#include "server/engine/grammar/json_numbers.h"
#include "server/engine/grammar/pattern.h"
#include "server/engine/grammar/schema_compiler.h"

namespace nibble {
namespace {

constexpr int64_t kEndless = Pattern::kEndless;

}  // namespace

GrammarNode SchemaCompiler::AddString(Node from, const SchemaJson& schema) {
  if (schema.contains("pattern")) {
    return AddStringOfPattern(from, schema);
  }
  const int64_t least = Count(schema, "minLength", 0, kLengthMax);
  const int64_t most = Count(schema, "maxLength", kEndless, kLengthMax);
  if (least == 0 && most == kEndless) {
    return builder_.Call(from, rules_.string());
  }
  return AddStringOfLength(from, least, most);
}

GrammarNode SchemaCompiler::AddStringOfLength(Node from, int64_t least, int64_t most) {
  from = builder_.Literal(from, "\"");
  const Node close = builder_.AddNode();
  for (int64_t count = 0; count < std::max(least, most) && builder_.ok(); ++count) {
    if (count >= least) {
      builder_.AddEmpty(from, close);
    }
    from = builder_.Call(from, rules_.character());
  }
  if (most == kEndless) {
    builder_.AddCall(from, rules_.character(), from);
  }
  if (most == kEndless || least <= most) {
    builder_.AddEmpty(from, close);
  }
  return builder_.Literal(close, "\"");
}

GrammarNode SchemaCompiler::AddStringOfPattern(Node from, const SchemaJson& schema) {
  if (!schema["pattern"].is_string()) {
    Invalid("pattern: expected a string");
    return from;
  }
  const auto pattern = ReadPattern(schema["pattern"].get_ref<const std::string&>());
  if (!pattern.ok()) {
    Refuse(pattern.status());
    return from;
  }
  from = builder_.Literal(from, "\"");
  if (!schema.contains("minLength") && !schema.contains("maxLength")) {
    return builder_.Literal(AddPattern(builder_, from, *pattern), "\"");
  }
  // Both are automata over the same spelling of a text, so they can be run side by side.
  Pattern length{.kind = Pattern::Kind::kRepeat, .characters = {}, .parts = {}};
  length.least = Count(schema, "minLength", 0, kLengthMax);
  length.most = Count(schema, "maxLength", kEndless, kLengthMax);
  length.parts.push_back(
      {.kind = Pattern::Kind::kCharacters, .characters = {{0, kCodePointMax}}, .parts = {}});
  if (length.most != kEndless && length.most < length.least) {
    return Never();
  }
  std::vector<Grammar> sides;
  for (const Pattern* side : {&*pattern, static_cast<const Pattern*>(&length)}) {
    const int32_t rule = builder_.AddRule();
    builder_.AddEmpty(AddPattern(builder_, builder_.rule(rule).start, *side),
                      builder_.rule(rule).end);
    auto grammar = Determinize(builder_, rule);
    if (!grammar.ok()) {
      Refuse(grammar.status());
      return from;
    }
    sides.push_back(*std::move(grammar));
  }
  return builder_.Literal(AddProduct(builder_, from, sides[0], sides[1], Agreement::kBoth), "\"");
}

GrammarNode SchemaCompiler::AddIntegerSchema(Node from, const SchemaJson& schema) {
  int64_t least = -kIntegerMax;
  int64_t most = kIntegerMax;
  const auto bound = [&](const char* keyword, auto apply) {
    const auto found = schema.find(keyword);
    if (found == schema.end()) {
      return;
    }
    if (!found->is_number()) {
      Invalid(absl::StrCat(keyword, ": expected a number"));
      return;
    }
    // Beyond what is written anyway, a double's rounding does not matter.
    const double value = found->get<double>();
    if (found->is_number_float() || std::abs(value) > 1e18) {
      const double clamped = std::clamp(value, -2e18, 2e18);
      apply(static_cast<int64_t>(std::floor(clamped)), static_cast<int64_t>(std::ceil(clamped)));
    } else {
      apply(found->get<int64_t>(), found->get<int64_t>());
    }
  };
  bound("minimum", [&](int64_t, int64_t up) { least = std::max(least, up); });
  bound("exclusiveMinimum", [&](int64_t down, int64_t) { least = std::max(least, down + 1); });
  bound("maximum", [&](int64_t down, int64_t) { most = std::min(most, down); });
  bound("exclusiveMaximum", [&](int64_t, int64_t up) { most = std::min(most, up - 1); });
  if (least == -kIntegerMax && most == kIntegerMax) {
    return builder_.Call(from, rules_.integer());
  }
  return AddInteger(builder_, from, std::min(least, kIntegerMax + 1),
                    std::max(most, -kIntegerMax - 1));
}

std::optional<DecimalBound> SchemaCompiler::NearestBound(const SchemaJson& schema,
                                                         const char* included, const char* excluded,
                                                         bool is_least) {
  std::optional<DecimalBound> nearest;
  double nearest_value = 0;
  for (const char* keyword : {included, excluded}) {
    const auto found = schema.find(keyword);
    if (found == schema.end()) {
      continue;
    }
    const auto decimal = found->is_number() ? ReadDecimal(found->dump()) : std::nullopt;
    if (!decimal.has_value()) {
      Invalid(absl::StrCat(keyword, ": expected a number of at most ", kIntegerDigitsMax,
                           " digits before the point and ", kFractionDigitsMax, " behind it"));
      return nearest;
    }
    // Of two that are equal the second, which excludes more.
    const double value = found->get<double>();
    if (!nearest || (is_least ? value >= nearest_value : value <= nearest_value)) {
      nearest = {.value = *decimal, .is_included = keyword == included};
      nearest_value = value;
    }
  }
  return nearest;
}

GrammarNode SchemaCompiler::AddNumberSchema(Node from, const SchemaJson& schema) {
  const auto least = NearestBound(schema, "minimum", "exclusiveMinimum", true);
  const auto most = NearestBound(schema, "maximum", "exclusiveMaximum", false);
  if (!least && !most) {
    return builder_.Call(from, rules_.number());
  }
  return AddDecimal(builder_, from, least, most);
}

}  // namespace nibble
