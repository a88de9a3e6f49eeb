// Whether a value satisfies a schema, by draft 2020-12 as its text reads: written apart from the
// compiler, slow, and only for what the tests' schemas use.

#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <utility>

namespace nibble {

class SchemaChecker {
 public:
  using Json = nlohmann::json;

  explicit SchemaChecker(Json root) : root_(std::move(root)) {}

  bool Holds(const Json& value) const { return Holds(root_, value); }

 private:
  static bool HasType(const Json& value, const std::string& type) {
    return (type == "null" && value.is_null()) || (type == "boolean" && value.is_boolean()) ||
           (type == "string" && value.is_string()) || (type == "array" && value.is_array()) ||
           (type == "object" && value.is_object()) || (type == "number" && value.is_number()) ||
           (type == "integer" && value.is_number_integer());
  }

  static int64_t CodePoints(const std::string& utf8) {
    return std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; });
  }

  bool Holds(const Json& schema, const Json& value) const {
    if (schema.is_boolean()) {
      return schema.get<bool>();
    }
    return HoldsGeneral(schema, value) && HoldsComposition(schema, value) &&
           (!value.is_string() || HoldsString(schema, value.get<std::string>())) &&
           (!value.is_number() || HoldsNumber(schema, value.get<double>())) &&
           (!value.is_array() || HoldsArray(schema, value)) &&
           (!value.is_object() || HoldsObject(schema, value));
  }

  bool HoldsGeneral(const Json& schema, const Json& value) const {
    if (schema.contains("type")) {
      bool any = false;
      for (const Json& type :
           schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]})) {
        any = any || HasType(value, type);
      }
      if (!any) {
        return false;
      }
    }
    if (schema.contains("enum") &&
        std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end()) {
      return false;
    }
    return !schema.contains("const") || schema["const"] == value;
  }

  bool HoldsComposition(const Json& schema, const Json& value) const {
    if (schema.contains("$ref")) {
      const std::string ref = schema["$ref"];
      if (!Holds(root_.at(Json::json_pointer(ref.substr(1))), value)) {
        return false;
      }
    }
    for (const Json& part : schema.value("allOf", Json::array())) {
      if (!Holds(part, value)) {
        return false;
      }
    }
    for (const char* keyword : {"anyOf", "oneOf"}) {
      bool any = !schema.contains(keyword);
      for (const Json& part : schema.value(keyword, Json::array())) {
        any = any || Holds(part, value);
      }
      if (!any) {
        return false;
      }
    }
    return true;
  }

  bool HoldsString(const Json& schema, const std::string& text) const {
    const int64_t length = CodePoints(text);
    return length >= schema.value("minLength", int64_t{0}) &&
           length <= schema.value("maxLength", INT64_MAX) &&
           (!schema.contains("pattern") ||
            std::regex_search(text, std::regex(schema["pattern"].get<std::string>())));
  }

  bool HoldsNumber(const Json& schema, double number) const {
    return number >= schema.value("minimum", -1e300) && number <= schema.value("maximum", 1e300) &&
           number > schema.value("exclusiveMinimum", -1e300) &&
           number < schema.value("exclusiveMaximum", 1e300);
  }

  bool HoldsArray(const Json& schema, const Json& value) const {
    if (std::ssize(value) < schema.value("minItems", int64_t{0}) ||
        std::ssize(value) > schema.value("maxItems", INT64_MAX)) {
      return false;
    }
    const Json prefix = schema.value("prefixItems", Json::array());
    const Json items = schema.value("items", Json(true));
    for (size_t i = 0; i < value.size(); ++i) {
      if (!Holds(i < prefix.size() ? prefix[i] : items, value[i])) {
        return false;
      }
    }
    return true;
  }

  bool HoldsObject(const Json& schema, const Json& value) const {
    for (const Json& name : schema.value("required", Json::array())) {
      if (!value.contains(name.get<std::string>())) {
        return false;
      }
    }
    const Json properties = schema.value("properties", Json::object());
    const Json others = schema.value("additionalProperties", Json(true));
    for (const auto& member : value.items()) {
      const bool is_named = properties.contains(member.key());
      if (!Holds(is_named ? properties[member.key()] : others, member.value())) {
        return false;
      }
    }
    return true;
  }

  const Json root_;
};

}  // namespace nibble
