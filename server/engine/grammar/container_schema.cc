// Arrays and objects.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/grammar/determinize.h"
#include "server/engine/grammar/grammar_limits.h"
#include "server/engine/grammar/json_characters.h"
#include "server/engine/grammar/pattern.h"
#include "server/engine/grammar/schema_compiler.h"
#include "server/engine/grammar/schema_keywords.h"

namespace nibble {
namespace {

constexpr int64_t kEndless = Pattern::kEndless;

}  // namespace

GrammarNode SchemaCompiler::AddArray(Node from, const SchemaJson& schema) {
  if (!HasKind(schema, KeywordKind::kArray)) {
    return builder_.Call(from, rules_.array());
  }
  const int64_t least = Count(schema, "minItems", 0, kItemsMax);
  const int64_t most = Count(schema, "maxItems", kEndless, kItemsMax);
  if (schema.contains("prefixItems") && !schema["prefixItems"].is_array()) {
    Invalid("prefixItems: expected a list of schemas");
    return from;
  }
  if (schema.contains("items") && schema["items"].is_array()) {
    Unsupported("a list of items is not supported; use prefixItems");
    return from;
  }
  if (most != kEndless && most < least) {
    return Never();
  }
  return AddElements(builder_.Literal(from, "["), schema, least, most);
}

// After each element the array may be closed or go on:
//
//   [ ──► 1st ──► , ──► 2nd ──► , ──► 3rd ─┐
//   │      │             │            │  , └─► again, if nothing bounds their number
//   └──────┴─────────────┴────────────┴──► ]
GrammarNode SchemaCompiler::AddElements(Node open, const SchemaJson& schema, int64_t least,
                                        int64_t most) {
  const SchemaJson none = SchemaJson::array();
  const SchemaJson& prefix = schema.contains("prefixItems") ? schema["prefixItems"] : none;
  const Place place(*this, "items");
  int32_t item = rules_.value();
  if (schema.contains("items")) {
    // Drawn once however many there may be. The schema itself may be gone by then.
    item = RuleOfCopy(schema["items"]);
  }
  const Node close = builder_.AddNode();
  if (least == 0) {
    builder_.AddEmpty(open, close);
  }
  const int64_t counted = std::max({least, most, std::ssize(prefix)});
  const int64_t last = most == kEndless ? counted : most;
  Node from = open;
  for (int64_t i = 0; i < last && builder_.ok(); ++i) {
    const Node before = rules_.Space(builder_, i == 0 ? from : builder_.Literal(from, ","));
    from = i < std::ssize(prefix) ? AddSchema(before, prefix[static_cast<size_t>(i)])
                                  : builder_.Call(before, item);
    if (i + 1 >= least) {
      builder_.AddEmpty(from, close);
    }
  }
  if (most == kEndless) {
    const Node again = builder_.AddNode();
    const Node before = builder_.AddNode();
    builder_.AddEmpty(rules_.Space(builder_, last == 0 ? from : builder_.Literal(from, ",")),
                      before);
    builder_.AddCall(before, item, again);
    builder_.AddEmpty(rules_.Space(builder_, builder_.Literal(again, ",")), before);
    builder_.AddEmpty(again, close);
  }
  return builder_.Literal(rules_.Space(builder_, close), "]");
}

std::vector<SchemaCompiler::Property> SchemaCompiler::PropertiesOf(const SchemaJson& schema) {
  std::vector<Property> properties;
  if (const auto found = schema.find("properties"); found != schema.end()) {
    if (!found->is_object()) {
      Invalid("properties: expected an object of schemas");
      return {};
    }
    for (const auto& member : found->items()) {
      properties.push_back({member.key(), &member.value(), false});
    }
  }
  AddRequired(schema, properties);
  return properties;
}

void SchemaCompiler::AddRequired(const SchemaJson& schema, std::vector<Property>& properties) {
  const auto found = schema.find("required");
  if (found == schema.end()) {
    return;
  }
  if (!found->is_array()) {
    Invalid("required: expected a list of names");
    return;
  }
  const auto others = schema.find("additionalProperties");
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < properties.size(); ++i) {
    places[properties[i].name] = i;
  }
  for (const SchemaJson& name : *found) {
    if (!name.is_string()) {
      Invalid("required: expected a list of names");
      return;
    }
    const auto [place, is_new] = places.try_emplace(name.get<std::string>(), properties.size());
    if (is_new) {
      properties.push_back({place->first, others == schema.end() ? &anything_ : &*others, false});
    }
    properties[place->second].is_required = true;
  }
}

// Properties in their order, optional ones may be skipped, others follow:
//
//   { ──► 1st ──► , ──► 2nd ──► , ──► other ─┐
//   │      │             │             │   , └─► again
//   └──────┴─────────────┴─────────────┴──► }     where only optional ones are left
GrammarNode SchemaCompiler::AddObject(Node from, const SchemaJson& schema) {
  if (!HasKind(schema, KeywordKind::kObject)) {
    return builder_.Call(from, rules_.object());
  }
  const std::vector<Property> properties = PropertiesOf(schema);
  size_t required_count = 0;  // Up to the last that is required.
  for (size_t i = 0; i < properties.size(); ++i) {
    required_count = properties[i].is_required ? i + 1 : required_count;
  }
  const Node open = builder_.Literal(from, "{");
  const Node close = builder_.AddNode();
  if (required_count == 0) {
    builder_.AddEmpty(open, close);
  }
  Node key = rules_.Space(builder_, open);
  for (size_t i = 0; i < properties.size() && builder_.ok(); ++i) {
    const auto& [name, property, is_required] = properties[i];
    const Place place(*this, absl::StrCat("properties/", name));
    const Node colon = builder_.Literal(AddStringLiteral(builder_, key, name), ":");
    const Node value = AddSchema(rules_.Space(builder_, colon), *property);
    const Node next_key = rules_.Space(builder_, builder_.Literal(value, ","));
    if (!is_required) {
      builder_.AddEmpty(key, next_key);
    }
    if (i + 1 >= required_count) {
      builder_.AddEmpty(value, close);
    }
    key = next_key;
  }
  // Where it is silent about them and names some, others are left out: that satisfies it, too.
  const auto others = schema.find("additionalProperties");
  const bool is_open = others == schema.end() ? properties.empty() : *others != false;
  if (is_open) {
    const Place place(*this, "additionalProperties");
    const int32_t rule = others == schema.end() ? rules_.value() : RuleOfCopy(*others);
    const Node colon = builder_.Literal(AddOtherKey(key, properties), ":");
    const Node value = builder_.Call(rules_.Space(builder_, colon), rule);
    builder_.AddEmpty(rules_.Space(builder_, builder_.Literal(value, ",")), key);
    builder_.AddEmpty(value, close);
  }
  return builder_.Literal(rules_.Space(builder_, close), "}");
}

// A key that is none of `properties`. In its plain spelling, so that \u0061 is not another "a".
GrammarNode SchemaCompiler::AddOtherKey(Node from, const std::vector<Property>& properties) {
  if (properties.empty()) {
    return builder_.Call(from, rules_.string());
  }
  const int32_t any = builder_.AddRule();
  const CodePointRange everything[] = {{0, kCodePointMax}};
  builder_.AddEmpty(builder_.rule(any).start, builder_.rule(any).end);
  builder_.AddEmpty(AddCharacter(builder_, builder_.rule(any).start, everything),
                    builder_.rule(any).start);
  const int32_t names = builder_.AddRule();
  for (const Property& property : properties) {
    builder_.AddEmpty(AddCharacters(builder_, builder_.rule(names).start, property.name),
                      builder_.rule(names).end);
  }
  const auto any_text = Determinize(builder_, any);
  const auto named = any_text.ok() ? Determinize(builder_, names) : any_text;
  if (!named.ok()) {
    Refuse(named.status());
    return from;
  }
  const Node inside = builder_.Literal(from, "\"");
  return builder_.Literal(AddProduct(builder_, inside, *any_text, *named, Agreement::kLeftOnly),
                          "\"");
}

}  // namespace nibble
