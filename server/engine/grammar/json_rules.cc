#include "server/engine/grammar/json_rules.h"

#include "server/engine/grammar/grammar_limits.h"
#include "server/engine/grammar/json_characters.h"
#include "server/engine/grammar/json_numbers.h"

namespace nibble {
namespace {

// A rule that `draw` draws from its start to its end.
template <typename Draw>
int32_t DrawRule(GrammarBuilder& builder, int32_t rule, Draw draw) {
  const GrammarBuilder::Rule ends = builder.rule(rule);
  builder.AddEmpty(draw(ends.start), ends.end);
  return rule;
}

// One space, or a newline and its indentation. It never follows itself, so nobody can write white
// space for ever.
GrammarNode DrawSpace(GrammarBuilder& builder, GrammarNode from) {
  const GrammarNode to = builder.Literal(from, " ");
  const GrammarNode line = builder.Literal(from, "\n");
  builder.AddEmpty(line, to);
  GrammarNode spaces = line;
  for (int i = 0; i < kIndentSpacesMax; ++i) {
    spaces = builder.Literal(spaces, " ");
    builder.AddEmpty(spaces, to);
  }
  GrammarNode tabs = line;
  for (int i = 0; i < kIndentTabsMax; ++i) {
    tabs = builder.Literal(tabs, "\t");
    builder.AddEmpty(tabs, to);
  }
  return to;
}

}  // namespace

JsonGrammarRules::JsonGrammarRules(GrammarBuilder& builder)
    : space_(builder.AddRule()),
      character_(builder.AddRule()),
      string_(builder.AddRule()),
      number_(builder.AddRule()),
      integer_(builder.AddRule()),
      array_(builder.AddRule()),
      object_(builder.AddRule()),
      value_(builder.AddRule()) {
  using Node = GrammarNode;
  DrawRule(builder, space_, [&](Node from) { return DrawSpace(builder, from); });
  DrawRule(builder, character_, [&](Node from) { return AddAnyCharacter(builder, from); });
  DrawRule(builder, string_, [&](Node from) {
    const Node inside = builder.Literal(from, "\"");
    builder.AddEmpty(AddAnyCharacter(builder, inside), inside);
    return builder.Literal(inside, "\"");
  });
  DrawRule(builder, number_, [&](Node from) { return AddNumber(builder, from); });
  DrawRule(builder, integer_,
           [&](Node from) { return AddInteger(builder, from, -kIntegerMax, kIntegerMax); });
  DrawRule(builder, array_, [&](Node from) {
    const Node open = builder.Literal(from, "[");
    const Node element = builder.Call(Space(builder, open), value_);
    const Node again = builder.Literal(element, ",");
    builder.AddEmpty(builder.Call(Space(builder, again), value_), element);
    const Node close = builder.AddNode();
    builder.AddEmpty(open, close);
    builder.AddEmpty(element, close);
    return builder.Literal(Space(builder, close), "]");
  });
  DrawRule(builder, object_, [&](Node from) {
    const Node open = builder.Literal(from, "{");
    const Node key = Space(builder, open);
    const Node colon = builder.Literal(builder.Call(key, string_), ":");
    const Node member = builder.Call(Space(builder, colon), value_);
    builder.AddEmpty(Space(builder, builder.Literal(member, ",")), key);
    const Node close = builder.AddNode();
    builder.AddEmpty(open, close);
    builder.AddEmpty(member, close);
    return builder.Literal(Space(builder, close), "}");
  });
  DrawRule(builder, value_, [&](Node from) {
    const Node to = builder.AddNode();
    for (const char* word : {"null", "true", "false"}) {
      builder.AddEmpty(builder.Literal(from, word), to);
    }
    for (const int32_t rule : {string_, number_, array_, object_}) {
      builder.AddCall(from, rule, to);
    }
    return to;
  });
}

GrammarNode JsonGrammarRules::Space(GrammarBuilder& builder, GrammarNode from) const {
  const GrammarNode to = builder.Call(from, space_);
  builder.AddEmpty(from, to);
  return to;
}

}  // namespace nibble
