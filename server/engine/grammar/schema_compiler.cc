#include "server/engine/grammar/schema_compiler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/grammar/grammar_limits.h"
#include "server/engine/grammar/schema_keywords.h"

namespace nibble {

SchemaCompiler::Place::Place(SchemaCompiler& compiler, absl::string_view step)
    : compiler_(compiler), length_(compiler.place_.size()) {
  absl::StrAppend(&compiler_.place_, "/", step);
  ++compiler_.depth_;
}

SchemaCompiler::Place::~Place() {
  compiler_.place_.resize(length_);
  --compiler_.depth_;
}

void SchemaCompiler::Refuse(const absl::Status& status) {
  const absl::string_view message = status.message();
  // Those of the builder and of $ref name the schema themselves.
  builder_.Refuse(
      message.substr(0, 11) == "JSON schema"
          ? status
          : absl::Status(status.code(),
                         absl::StrCat("JSON schema at ", Printable("#" + place_), ": ", message)));
}

void SchemaCompiler::Invalid(absl::string_view message) {
  Refuse(absl::InvalidArgumentError(message));
}

void SchemaCompiler::Unsupported(absl::string_view message) {
  Refuse(absl::UnimplementedError(message));
}

bool SchemaCompiler::CheckKeywords(const SchemaJson& schema) {
  for (const auto& member : schema.items()) {
    if (KindOfKeyword(member.key()) == KeywordKind::kUnsupported &&
        !(member.key() == "uniqueItems" && member.value() == false)) {
      Unsupported(absl::StrCat("keyword ", Printable(member.key()), " is not supported"));
      return false;
    }
  }
  return true;
}

int64_t SchemaCompiler::Count(const SchemaJson& schema, const char* keyword, int64_t otherwise,
                              int64_t most) {
  const auto found = schema.find(keyword);
  if (found == schema.end()) {
    return otherwise;
  }
  // 3.0 is an integer to JSON schema.
  const double value = found->is_number() ? found->get<double>() : -1;
  if (!(value >= 0) || value != static_cast<double>(static_cast<int64_t>(std::min(value, 1e15)))) {
    Invalid(absl::StrCat(keyword, ": expected an integer that is not negative"));
    return otherwise;
  }
  if (value > static_cast<double>(most)) {
    Invalid(absl::StrCat(keyword, ": expected at most ", most, ", found ", found->dump()));
    return otherwise;
  }
  return static_cast<int64_t>(value);
}

int32_t SchemaCompiler::Compile() {
  const int32_t whole = RuleOf(root_, "");
  while (!pending_.empty() && builder_.ok()) {
    const Pending next = std::move(pending_.front());
    pending_.pop_front();
    place_ = next.place;
    const GrammarBuilder::Rule ends = builder_.rule(next.rule);
    builder_.AddEmpty(AddSchema(ends.start, *next.schema), ends.end);
  }
  return whole;
}

int32_t SchemaCompiler::RuleOf(const SchemaJson& schema, std::string place) {
  if (AllowsAnything(schema)) {
    return rules_.value();
  }
  const auto [found, is_new] = known_rules_.try_emplace(&schema, 0);
  if (is_new) {
    found->second = builder_.AddRule();
    pending_.push_back({&schema, found->second, std::move(place)});
  }
  return found->second;
}

int32_t SchemaCompiler::RuleOfCopy(SchemaJson schema) {
  if (!builder_.Charge(std::ssize(schema.dump()))) {
    return rules_.value();
  }
  copies_.push_back(std::move(schema));
  return RuleOf(copies_.back(), place_);
}

GrammarNode SchemaCompiler::AddSchema(Node from, const SchemaJson& schema) {
  if (!builder_.Charge(1)) {
    return from;
  }
  if (depth_ > kSchemaDepthMax + kSchemaHopsMax) {
    Invalid("$ref, allOf and anyOf lead into each other too often");
    return from;
  }
  if (schema.is_boolean()) {
    return schema.get<bool>() ? builder_.Call(from, rules_.value()) : Never();
  }
  if (!schema.is_object()) {
    Invalid("expected a schema: an object, true or false");
    return from;
  }
  if (!CheckKeywords(schema)) {
    return from;
  }
  return AllowsAnything(schema) ? builder_.Call(from, rules_.value())
                                : AddObjectSchema(from, schema);
}

GrammarNode SchemaCompiler::AddObjectSchema(Node from, const SchemaJson& schema) {
  if (schema.contains("allOf")) {
    return AddMerged(from, schema);
  }
  if (schema.contains("$ref")) {
    return AddReference(from, schema);
  }
  if (schema.contains("anyOf") && schema.contains("oneOf")) {
    Unsupported("anyOf beside oneOf is not supported");
    return from;
  }
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (schema.contains(keyword)) {
      return AddAlternatives(from, schema, keyword);
    }
  }
  if (schema.contains("enum") || schema.contains("const")) {
    return AddEnum(from, schema);
  }
  return AddTypes(from, schema);
}

GrammarNode SchemaCompiler::AddMerged(Node from, const SchemaJson& schema) {
  const auto merged = merger_.Flatten(schema);
  if (!merged.ok()) {
    Refuse(merged.status());
    return from;
  }
  const Place place(*this, "allOf");
  return AddSchema(from, *merged);
}

GrammarNode SchemaCompiler::AddReference(Node from, const SchemaJson& schema) {
  SchemaJson siblings = schema;
  siblings.erase("$ref");
  if (!AllowsAnything(siblings)) {
    return AddMerged(from, schema);
  }
  const SchemaJson& ref = schema["$ref"];
  if (!ref.is_string()) {
    Invalid("$ref: expected a string");
    return from;
  }
  const auto target = FindReferenced(root_, ref.get_ref<const std::string&>());
  if (!target.ok()) {
    Refuse(target.status());
    return from;
  }
  return builder_.Call(from, RuleOf(**target, ref.get<std::string>().substr(1)));
}

GrammarNode SchemaCompiler::AddAlternatives(Node from, const SchemaJson& schema,
                                            const char* keyword) {
  const SchemaJson& branches = schema[keyword];
  if (!branches.is_array() || branches.empty()) {
    Invalid(absl::StrCat(keyword, ": expected a list of schemas"));
    return from;
  }
  SchemaJson siblings = schema;
  for (const char* absent : {keyword, "$defs", "definitions"}) {
    siblings.erase(absent);
  }
  const bool has_siblings = !AllowsAnything(siblings);
  const Node to = builder_.AddNode();
  for (size_t i = 0; i < branches.size() && builder_.ok(); ++i) {
    const Place place(*this, absl::StrCat(keyword, "/", i));
    if (!has_siblings) {
      builder_.AddEmpty(AddSchema(from, branches[i]), to);
      continue;
    }
    const auto merged = merger_.Merge(siblings, branches[i]);
    if (!merged.ok()) {
      Refuse(merged.status());
      return from;
    }
    builder_.AddEmpty(AddSchema(from, *merged), to);
  }
  return to;
}

std::vector<std::string> SchemaCompiler::TypesOf(const SchemaJson& schema) {
  const auto type = schema.find("type");
  std::vector<std::string> types;
  if (type != schema.end()) {
    for (const SchemaJson& one : type->is_array() ? *type : SchemaJson::array({*type})) {
      if (!one.is_string()) {
        Invalid("type: expected a name or a list of names");
        return {};
      }
      types.push_back(one.get<std::string>());
    }
    return types;
  }
  // A schema that says how a number must be says nothing about strings, but hardly means them.
  const std::pair<KeywordKind, const char*> implied[] = {{KeywordKind::kString, "string"},
                                                         {KeywordKind::kNumber, "number"},
                                                         {KeywordKind::kArray, "array"},
                                                         {KeywordKind::kObject, "object"}};
  for (const auto& [kind, name] : implied) {
    if (HasKind(schema, kind)) {
      types.push_back(name);
    }
  }
  return types;
}

GrammarNode SchemaCompiler::AddTypes(Node from, const SchemaJson& schema) {
  const Node to = builder_.AddNode();
  for (const std::string& type : TypesOf(schema)) {
    builder_.AddEmpty(AddType(from, schema, type), to);
  }
  return to;
}

GrammarNode SchemaCompiler::AddType(Node from, const SchemaJson& schema, absl::string_view type) {
  if (type == "null") {
    return builder_.Literal(from, "null");
  }
  if (type == "boolean") {
    const Node to = builder_.Literal(from, "true");
    builder_.AddEmpty(builder_.Literal(from, "false"), to);
    return to;
  }
  if (type == "string") {
    return AddString(from, schema);
  }
  if (type == "integer") {
    return AddIntegerSchema(from, schema);
  }
  if (type == "number") {
    return AddNumberSchema(from, schema);
  }
  if (type == "array") {
    return AddArray(from, schema);
  }
  if (type == "object") {
    return AddObject(from, schema);
  }
  Invalid(
      absl::StrCat("type: expected null, boolean, string, integer, number, array or object, "
                   "found ",
                   Printable(type)));
  return from;
}

}  // namespace nibble
