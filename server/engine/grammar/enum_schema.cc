// Values that a schema lists: enum and const.

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/grammar/json_characters.h"
#include "server/engine/grammar/schema_compiler.h"
#include "server/engine/grammar/schema_keywords.h"

namespace nibble {
namespace {

bool IsOfType(const SchemaJson& value, absl::string_view type) {
  switch (value.type()) {
    case SchemaJson::value_t::null:
      return type == "null";
    case SchemaJson::value_t::boolean:
      return type == "boolean";
    case SchemaJson::value_t::string:
      return type == "string";
    case SchemaJson::value_t::array:
      return type == "array";
    case SchemaJson::value_t::object:
      return type == "object";
    case SchemaJson::value_t::number_float:
      return type == "number" ||
             (type == "integer" && std::trunc(value.get<double>()) == value.get<double>());
    default:
      return type == "number" || type == "integer";
  }
}

}  // namespace

GrammarNode SchemaCompiler::AddEnum(Node from, const SchemaJson& schema) {
  for (const auto& member : schema.items()) {
    const KeywordKind kind = KindOfKeyword(member.key());
    if (kind != KeywordKind::kAnnotation && kind != KeywordKind::kDefinitions &&
        kind != KeywordKind::kChoice) {
      Unsupported(absl::StrCat(Printable(member.key()), " beside enum or const is not supported"));
      return from;
    }
  }
  SchemaJson values =
      schema.contains("enum") ? schema["enum"] : SchemaJson::array({schema["const"]});
  if (!values.is_array()) {
    Invalid("enum: expected a list of values");
    return from;
  }
  const std::vector<std::string> types = TypesOf(schema);
  const Node to = builder_.AddNode();
  for (const SchemaJson& value : values) {
    const bool is_of_type = !schema.contains("type") ||
                            std::any_of(types.begin(), types.end(), [&](const std::string& type) {
                              return IsOfType(value, type);
                            });
    if (is_of_type && (!schema.contains("const") || schema["const"] == value)) {
      builder_.AddEmpty(AddConstant(from, value), to);
    }
  }
  return to;
}

GrammarNode SchemaCompiler::AddConstant(Node from, const SchemaJson& value) {
  if (value.is_string()) {
    return AddStringLiteral(builder_, from, value.get_ref<const std::string&>());
  }
  if (!value.is_structured()) {
    return builder_.Literal(from, value.dump());
  }
  const bool is_object = value.is_object();
  from = builder_.Literal(from, is_object ? "{" : "[");
  bool is_first = true;
  for (const auto& member : value.items()) {
    if (!is_first) {
      from = builder_.Literal(from, ",");
    }
    is_first = false;
    from = rules_.Space(builder_, from);
    if (is_object) {
      from = builder_.Literal(AddStringLiteral(builder_, from, member.key()), ":");
      from = rules_.Space(builder_, from);
    }
    from = AddConstant(from, member.value());
  }
  if (!is_first) {
    from = rules_.Space(builder_, from);
  }
  return builder_.Literal(from, is_object ? "}" : "]");
}

}  // namespace nibble
