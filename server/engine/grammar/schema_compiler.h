// Draws a schema's grammar, keyword by keyword.

#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/engine/grammar/decimal_range.h"
#include "server/engine/grammar/grammar_builder.h"
#include "server/engine/grammar/json_rules.h"
#include "server/engine/grammar/schema_document.h"
#include "server/engine/grammar/schema_merge.h"

namespace nibble {

// Errors stick to the builder. Recursion is bounded by kSchemaDepthMax and kSchemaHopsMax; what a
// $ref points at becomes a rule, drawn later. Used once.
class SchemaCompiler {
 public:
  // Both must outlive the compiler.
  SchemaCompiler(GrammarBuilder& builder, const SchemaJson& root)
      : builder_(builder), root_(root), rules_(builder), merger_(builder, root) {}

  // Draws everything. Returns the rule of the whole value.
  int32_t Compile();

 private:
  using Node = GrammarNode;

  // Adds a step to the place that messages name, for its lifetime.
  class Place {
   public:
    Place(SchemaCompiler& compiler, absl::string_view step);
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

   private:
    SchemaCompiler& compiler_;
    size_t length_;
  };

  void Invalid(absl::string_view message);
  void Unsupported(absl::string_view message);
  void Refuse(const absl::Status& status);
  bool CheckKeywords(const SchemaJson& schema);
  // A keyword that counts: its value or `otherwise`.
  int64_t Count(const SchemaJson& schema, const char* keyword, int64_t otherwise, int64_t most);

  int32_t RuleOf(const SchemaJson& schema, std::string place);
  // Like RuleOf for a schema without a place of its own.
  int32_t RuleOfCopy(SchemaJson schema);

  // Nothing that could be written.
  Node Never() { return builder_.AddNode(); }
  Node AddSchema(Node from, const SchemaJson& schema);
  Node AddObjectSchema(Node from, const SchemaJson& schema);
  Node AddMerged(Node from, const SchemaJson& schema);
  Node AddReference(Node from, const SchemaJson& schema);
  Node AddAlternatives(Node from, const SchemaJson& schema, const char* keyword);
  Node AddTypes(Node from, const SchemaJson& schema);
  Node AddType(Node from, const SchemaJson& schema, absl::string_view type);
  std::vector<std::string> TypesOf(const SchemaJson& schema);

  // enum_schema.cc
  Node AddEnum(Node from, const SchemaJson& schema);
  Node AddConstant(Node from, const SchemaJson& value);

  // scalar_schema.cc
  Node AddString(Node from, const SchemaJson& schema);
  Node AddStringOfLength(Node from, int64_t least, int64_t most);
  Node AddStringOfPattern(Node from, const SchemaJson& schema);
  Node AddIntegerSchema(Node from, const SchemaJson& schema);
  std::optional<DecimalBound> NearestBound(const SchemaJson& schema, const char* included,
                                           const char* excluded, bool is_least);
  Node AddNumberSchema(Node from, const SchemaJson& schema);

  // container_schema.cc
  struct Property {
    std::string name;
    const SchemaJson* schema;
    bool is_required;
  };
  Node AddArray(Node from, const SchemaJson& schema);
  Node AddElements(Node open, const SchemaJson& schema, int64_t least, int64_t most);
  Node AddObject(Node from, const SchemaJson& schema);
  std::vector<Property> PropertiesOf(const SchemaJson& schema);
  void AddRequired(const SchemaJson& schema, std::vector<Property>& properties);
  Node AddOtherKey(Node from, const std::vector<Property>& properties);

  GrammarBuilder& builder_;
  const SchemaJson& root_;
  const JsonGrammarRules rules_;
  SchemaMerger merger_;
  const SchemaJson anything_ = true;
  std::string place_;
  int depth_ = 0;
  struct Pending {
    const SchemaJson* schema;
    int32_t rule;
    std::string place;
  };
  std::deque<Pending> pending_;
  std::map<const SchemaJson*, int32_t> known_rules_;
  std::deque<SchemaJson> copies_;  // What rules point at that is not in root_.
};

}  // namespace nibble
