#include "server/engine/grammar/schema_keywords.h"

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

constexpr std::pair<absl::string_view, KeywordKind> kKeywords[] = {
    {"title", KeywordKind::kAnnotation},
    {"description", KeywordKind::kAnnotation},
    {"default", KeywordKind::kAnnotation},
    {"examples", KeywordKind::kAnnotation},
    {"example", KeywordKind::kAnnotation},
    {"deprecated", KeywordKind::kAnnotation},
    {"readOnly", KeywordKind::kAnnotation},
    {"writeOnly", KeywordKind::kAnnotation},
    {"format", KeywordKind::kAnnotation},  // By draft 2020-12, unless a vocabulary asks for more.
    {"contentEncoding", KeywordKind::kAnnotation},
    {"contentMediaType", KeywordKind::kAnnotation},
    {"discriminator", KeywordKind::kAnnotation},  // OpenAPI's, beside oneOf; pydantic writes it.
    {"$schema", KeywordKind::kAnnotation},
    {"$comment", KeywordKind::kAnnotation},
    {"$defs", KeywordKind::kDefinitions},
    {"definitions", KeywordKind::kDefinitions},
    {"$ref", KeywordKind::kComposition},
    {"allOf", KeywordKind::kComposition},
    {"anyOf", KeywordKind::kComposition},
    {"oneOf", KeywordKind::kComposition},
    {"type", KeywordKind::kChoice},
    {"enum", KeywordKind::kChoice},
    {"const", KeywordKind::kChoice},
    {"minLength", KeywordKind::kString},
    {"maxLength", KeywordKind::kString},
    {"pattern", KeywordKind::kString},
    {"minimum", KeywordKind::kNumber},
    {"maximum", KeywordKind::kNumber},
    {"exclusiveMinimum", KeywordKind::kNumber},
    {"exclusiveMaximum", KeywordKind::kNumber},
    {"items", KeywordKind::kArray},
    {"prefixItems", KeywordKind::kArray},
    {"minItems", KeywordKind::kArray},
    {"maxItems", KeywordKind::kArray},
    {"properties", KeywordKind::kObject},
    {"required", KeywordKind::kObject},
    {"additionalProperties", KeywordKind::kObject},
};

}  // namespace

KeywordKind KindOfKeyword(absl::string_view keyword) {
  for (const auto& [name, kind] : kKeywords) {
    if (name == keyword) {
      return kind;
    }
  }
  return keyword.substr(0, 2) == "x-" ? KeywordKind::kAnnotation : KeywordKind::kUnsupported;
}

bool HasKind(const SchemaJson& schema, KeywordKind kind) {
  return std::any_of(schema.items().begin(), schema.items().end(),
                     [&](const auto& member) { return KindOfKeyword(member.key()) == kind; });
}

bool AllowsAnything(const SchemaJson& schema) {
  if (schema.is_boolean()) {
    return schema.get<bool>();
  }
  for (const auto& member : schema.items()) {
    const KeywordKind kind = KindOfKeyword(member.key());
    if (kind != KeywordKind::kAnnotation && kind != KeywordKind::kDefinitions) {
      return false;
    }
  }
  return true;
}

}  // namespace nibble
