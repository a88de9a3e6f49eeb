#include "server/engine/grammar/schema_merge.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/grammar/grammar_limits.h"
#include "server/engine/grammar/schema_keywords.h"

namespace nibble {
namespace {

SchemaJson Both(const SchemaJson& left, const SchemaJson& right) {
  return {{"allOf", SchemaJson::array({left, right})}};
}

SchemaJson List(const SchemaJson& value) {
  return value.is_array() ? value : SchemaJson::array({value});
}

bool Contains(const SchemaJson& list, const SchemaJson& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

SchemaJson Intersection(const SchemaJson& left, const SchemaJson& right) {
  SchemaJson result = SchemaJson::array();
  for (const SchemaJson& value : List(left)) {
    if (Contains(List(right), value)) {
      result.push_back(value);
    }
  }
  return result;
}

SchemaJson MergeTypes(const SchemaJson& left, const SchemaJson& right) {
  SchemaJson result = Intersection(left, right);
  // Integers are numbers.
  if (!Contains(result, "integer") &&
      ((Contains(List(left), "integer") && Contains(List(right), "number")) ||
       (Contains(List(left), "number") && Contains(List(right), "integer")))) {
    result.push_back("integer");
  }
  return result;
}

SchemaJson Union(const SchemaJson& left, const SchemaJson& right) {
  SchemaJson result = left;
  for (const SchemaJson& value : right) {
    if (!Contains(result, value)) {
      result.push_back(value);
    }
  }
  return result;
}

// What `schema` says about a property, or nullptr if it says nothing.
const SchemaJson* SchemaOfProperty(const SchemaJson& schema, const std::string& name) {
  const auto properties = schema.find("properties");
  if (properties != schema.end() && properties->contains(name)) {
    return &(*properties)[name];
  }
  const auto others = schema.find("additionalProperties");
  return others == schema.end() ? nullptr : &*others;
}

SchemaJson MergeProperties(const SchemaJson& left, const SchemaJson& right) {
  SchemaJson result = SchemaJson::object();
  for (const SchemaJson* side : {&left, &right}) {
    const auto properties = side->find("properties");
    if (properties == side->end()) {
      continue;
    }
    for (const auto& member : properties->items()) {
      const SchemaJson* of_left = SchemaOfProperty(left, member.key());
      const SchemaJson* of_right = SchemaOfProperty(right, member.key());
      if (of_left == nullptr || of_right == nullptr || *of_left == *of_right) {
        result[member.key()] = of_left == nullptr ? *of_right : *of_left;
      } else {
        result[member.key()] = Both(*of_left, *of_right);
      }
    }
  }
  return result;
}

// The value of a keyword that both have, unlike each other.
absl::StatusOr<SchemaJson> MergeKeyword(const std::string& keyword, const SchemaJson& left,
                                        const SchemaJson& right) {
  if (keyword == "type") {
    return MergeTypes(left, right);
  }
  if (keyword == "enum" && left.is_array() && right.is_array()) {
    return Intersection(left, right);
  }
  if (keyword == "required" && left.is_array() && right.is_array()) {
    return Union(left, right);
  }
  if (keyword == "items" || keyword == "additionalProperties") {
    return Both(left, right);
  }
  const bool are_numbers = left.is_number() && right.is_number();
  if (are_numbers && (keyword == "minLength" || keyword == "minItems" || keyword == "minimum" ||
                      keyword == "exclusiveMinimum")) {
    return std::max(left, right);
  }
  if (are_numbers && (keyword == "maxLength" || keyword == "maxItems" || keyword == "maximum" ||
                      keyword == "exclusiveMaximum")) {
    return std::min(left, right);
  }
  return absl::UnimplementedError(
      absl::StrCat("two ", Printable(keyword), " that must both hold are not supported"));
}

}  // namespace

absl::StatusOr<SchemaJson> SchemaMerger::Flatten(const SchemaJson& schema, int hops) {
  if (hops > kSchemaHopsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected at most ", kSchemaHopsMax, " $ref and allOf in each other"));
  }
  if (!schema.is_object() || (!schema.contains("$ref") && !schema.contains("allOf"))) {
    return builder_.Charge(1) ? absl::StatusOr<SchemaJson>(schema) : builder_.status();
  }
  SchemaJson result = schema;
  result.erase("$ref");
  result.erase("allOf");
  // $refs point into the whole schema, so copies need not have what they point at.
  result.erase("$defs");
  result.erase("definitions");
  std::vector<const SchemaJson*> parts;
  if (const auto ref = schema.find("$ref"); ref != schema.end()) {
    if (!ref->is_string()) {
      return absl::InvalidArgumentError("$ref: expected a string");
    }
    const auto target = FindReferenced(root_, ref->get_ref<const std::string&>());
    if (!target.ok()) {
      return target.status();
    }
    parts.push_back(*target);
  }
  if (const auto all = schema.find("allOf"); all != schema.end()) {
    if (!all->is_array()) {
      return absl::InvalidArgumentError("allOf: expected a list of schemas");
    }
    for (const SchemaJson& part : *all) {
      parts.push_back(&part);
    }
  }
  for (const SchemaJson* part : parts) {
    auto merged = Merge(result, *part, hops + 1);
    if (!merged.ok()) {
      return merged;
    }
    result = *std::move(merged);
  }
  return result;
}

absl::StatusOr<SchemaJson> SchemaMerger::Merge(const SchemaJson& left, const SchemaJson& right,
                                               int hops) {
  auto flat_left = Flatten(left, hops);
  auto flat_right = flat_left.ok() ? Flatten(right, hops) : flat_left;
  if (!flat_right.ok()) {
    return flat_right;
  }
  return MergeFlat(*flat_left, *flat_right);
}

absl::StatusOr<SchemaJson> SchemaMerger::MergeFlat(const SchemaJson& left,
                                                   const SchemaJson& right) {
  if (left.is_boolean() || right.is_boolean()) {
    const SchemaJson& decides = left.is_boolean() ? left : right;
    return decides.get<bool>() ? (left.is_boolean() ? right : left) : SchemaJson(false);
  }
  if (!left.is_object() || !right.is_object()) {
    return absl::InvalidArgumentError("expected a schema: an object, true or false");
  }
  // A schema that both sides had copied would double with each merge: count what is copied.
  if (!builder_.Charge(std::ssize(left.dump()) + std::ssize(right.dump()))) {
    return builder_.status();
  }
  SchemaJson result = left;
  if (left.contains("properties") || right.contains("properties")) {
    for (const SchemaJson* side : {&left, &right}) {
      const auto properties = side->find("properties");
      if (properties != side->end() && !properties->is_object()) {
        return absl::InvalidArgumentError("properties: expected an object of schemas");
      }
    }
    // Members are found one by one.
    const int64_t count = std::ssize(result["properties"]) +
                          (right.contains("properties") ? std::ssize(right["properties"]) : 0);
    if (!builder_.Charge(count * count / 8)) {
      return builder_.status();
    }
    result["properties"] = MergeProperties(left, right);
  }
  for (const auto& member : right.items()) {
    const std::string& keyword = member.key();
    const KeywordKind kind = KindOfKeyword(keyword);
    if (keyword == "properties" || kind == KeywordKind::kAnnotation ||
        kind == KeywordKind::kDefinitions) {
      continue;
    }
    const auto known = left.find(keyword);
    if (known == left.end()) {
      result[keyword] = member.value();
    } else if (*known != member.value()) {
      auto merged = MergeKeyword(keyword, *known, member.value());
      if (!merged.ok()) {
        return merged;
      }
      result[keyword] = *std::move(merged);
    }
  }
  return result;
}

}  // namespace nibble
