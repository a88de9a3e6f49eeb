// What is refused, and by which name.

#include <nlohmann/json.hpp>
#include <string>

#include "tests/server/engine/grammar/grammar_reader.h"

namespace nibble {
namespace {

using absl::StatusCode;

void ExpectRefused(const std::string& schema, StatusCode code, absl::string_view named) {
  const auto grammar = CompileJsonSchema(schema);
  EXPECT_EQ(grammar.status().code(), code) << grammar.status() << "\n" << schema.substr(0, 200);
  EXPECT_NE(grammar.status().message().find(std::string(named)), absl::string_view::npos)
      << grammar.status() << "\nshould name " << named;
}

TEST(SchemaLimitsTest, ConstraintsThatAreNotHonouredAreNamed) {
  for (const char* keyword :
       {"multipleOf", "not", "if", "then", "patternProperties", "propertyNames",
        "dependentRequired", "minProperties", "maxProperties", "contains", "unevaluatedProperties",
        "additionalItems", "$dynamicRef", "$anchor", "misspelt"}) {
    ExpectRefused(
        nlohmann::json{{"type", "object"}, {"properties", {{"p", {{keyword, 1}}}}}}.dump(),
        StatusCode::kUnimplemented, keyword);
    ExpectRefused(
        nlohmann::json{{"type", "object"}, {"properties", {{"p", {{keyword, 1}}}}}}.dump(),
        StatusCode::kUnimplemented, "#/properties/p");
  }
  ExpectRefused(R"({"uniqueItems":true})", StatusCode::kUnimplemented, "uniqueItems");
  ExpectRefused(R"({"items":[{}]})", StatusCode::kUnimplemented, "items");
  ExpectRefused(R"({"$ref":"other.json"})", StatusCode::kUnimplemented, "other.json");
  ExpectRefused(R"({"enum":[1],"minimum":2})", StatusCode::kUnimplemented, "minimum");
  ExpectRefused(R"({"anyOf":[{}],"oneOf":[{}]})", StatusCode::kUnimplemented, "oneOf");
  ExpectRefused(R"({"pattern":"a","allOf":[{"pattern":"b"}]})", StatusCode::kUnimplemented,
                "pattern");
}

TEST(SchemaLimitsTest, AnnotationsAreTaken) {
  EXPECT_EQ(
      Verdict(R"({"$schema":"x","$id":"y","title":"t","description":"d","default":1,"examples":[2],
      "format":"date","deprecated":true,"readOnly":true,"$comment":"c","x-order":1,"uniqueItems":false,
      "type":"string"})",
              "\"\""),
      "whole");
}

TEST(SchemaLimitsTest, WhatIsNoSchemaSaysWhy) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "JSON"},
      {"{", "JSON"},
      {"1", "expected a schema"},
      {R"({"type":"text"})", "text"},
      {R"({"type":1})", "type"},
      {R"({"minLength":-1})", "minLength"},
      {R"({"minLength":1.5})", "minLength"},
      {R"({"minimum":"a","type":"integer"})", "minimum"},
      {R"({"properties":[]})", "properties"},
      {R"({"required":"a"})", "required"},
      {R"({"prefixItems":{}})", "prefixItems"},
      {R"({"enum":1})", "enum"},
      {R"({"anyOf":[]})", "anyOf"},
      {R"({"pattern":1})", "pattern"},
      {R"({"$ref":1})", "$ref"},
      {R"({"$ref":"#/$defs/no"})", "#/$defs/no"},
      {R"({"allOf":{}})", "allOf"},
      {R"({"type":"object","type":"object"})", "type"},
      {R"({"properties":{"a":1}})", "#/properties/a"},
  };
  for (const auto& [schema, named] : cases) {
    ExpectRefused(schema, StatusCode::kInvalidArgument, named);
  }
}

TEST(SchemaLimitsTest, WhatNothingSatisfiesIsRefused) {
  for (const char* schema :
       {"false", R"({"enum":[]})", R"({"type":"integer","minimum":2,"maximum":1})",
        R"({"type":"integer","minimum":1e300})", R"({"type":"string","minLength":2,"maxLength":1})",
        R"({"type":"array","minItems":2,"maxItems":1})",
        R"({"type":"object","properties":{"a":false},"required":["a"]})",
        R"({"type":"object","required":["a"],"additionalProperties":false})",
        R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
        R"({"allOf":[{"type":"string"},{"type":"null"}]})"}) {
    ExpectRefused(schema, StatusCode::kInvalidArgument, "no value satisfies");
  }
  ExpectRefused(R"({"$ref":"#"})", StatusCode::kInvalidArgument, "leads to itself");
  ExpectRefused(R"({"anyOf":[{"type":"null"},{"$ref":"#/$defs/A"}],
      "$defs":{"A":{"anyOf":[{"$ref":"#"},{"type":"string"}]}}})",
                StatusCode::kInvalidArgument, "leads to itself");
  ExpectRefused(R"({"allOf":[{"$ref":"#"}]})", StatusCode::kInvalidArgument, "at most 64");
}

std::string Nested(int depth, const std::string& open, const std::string& inner,
                   const std::string& close) {
  std::string text;
  for (int i = 0; i < depth; ++i) {
    text += open;
  }
  text += inner;
  for (int i = 0; i < depth; ++i) {
    text += close;
  }
  return text;
}

TEST(SchemaLimitsTest, LimitsAreNamed) {
  const auto invalid = StatusCode::kInvalidArgument;
  ExpectRefused(Nested(10'000, R"({"items":)", "{}", "}"), invalid, "64");
  ExpectRefused(std::string(100'000, '['), invalid, "64");
  ExpectRefused("{\"title\":\"" + std::string(300'000, 'a') + "\"}", invalid, "262144 bytes");
  ExpectRefused(R"({"maxItems":1000000000,"type":"array"})", invalid, "maxItems");
  ExpectRefused(R"({"minItems":1e300,"type":"array"})", invalid, "minItems");
  ExpectRefused(R"({"maxLength":20000,"type":"string"})", invalid, "16384");
  nlohmann::json values = nlohmann::json::array();
  nlohmann::json properties;
  for (int i = 0; i < 1025; ++i) {
    values.push_back(i);
    properties["p" + std::to_string(i)] = true;
  }
  ExpectRefused(nlohmann::json{{"enum", values}}.dump(), invalid, "1024");
  ExpectRefused(nlohmann::json{{"properties", properties}}.dump(), invalid, "1024");
}

TEST(SchemaLimitsTest, HostileSchemasEndInAnError) {
  // Each definition names the next twice: 2^50 values, 51 rules.
  nlohmann::json doubled;
  for (int i = 0; i < 50; ++i) {
    const nlohmann::json next = {{"$ref", "#/$defs/d" + std::to_string(i + 1)}};
    doubled["d" + std::to_string(i)] = {
        {"type", "object"}, {"properties", {{"a", next}, {"b", next}}}, {"required", {"a", "b"}}};
  }
  doubled["d50"] = {{"type", "null"}};
  EXPECT_TRUE(
      CompileJsonSchema(nlohmann::json{{"$ref", "#/$defs/d0"}, {"$defs", doubled}}.dump()).ok());

  // The same with allOf, which copies.
  for (int i = 0; i < 50; ++i) {
    const nlohmann::json next = {{"$ref", "#/$defs/d" + std::to_string(i + 1)}};
    doubled["d" + std::to_string(i)] = {{"allOf", {next, next}}};
  }
  EXPECT_EQ(CompileJsonSchema(nlohmann::json{{"$ref", "#/$defs/d0"}, {"$defs", doubled}}.dump())
                .status()
                .code(),
            StatusCode::kInvalidArgument);

  // Arrays of arrays of 4,096 items: a rule for each level.
  EXPECT_FALSE(
      CompileJsonSchema(Nested(20, R"({"type":"array","minItems":4096,"items":)", "{}", "}")).ok());
  // Alternatives that begin alike, each of which begins with such alternatives.
  const std::string ambiguous =
      R"({"anyOf":[{"$ref":"#/$defs/A"},{"$ref":"#/$defs/B"},{"type":"null"}],
      "$defs":{"A":{"type":"object","properties":{"a":{"$ref":"#"},"x":{"type":"null"}},"required":["a"]},
               "B":{"type":"object","properties":{"a":{"$ref":"#"},"y":{"type":"null"}},"required":["a"]}}})";
  EXPECT_EQ(Verdict(ambiguous, Nested(100, R"({"a":)", "null", "}")), "whole");
}

}  // namespace
}  // namespace nibble
