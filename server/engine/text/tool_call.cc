#include "server/engine/text/tool_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "loader/json_reader.h"

namespace nibble {
namespace {

bool IsJson(absl::string_view text) {
  JsonReader reader(text, {});
  return reader.SkipValue() && reader.Finish();
}

bool IsJsonObject(absl::string_view text) {
  return JsonReader(text, {}).Peek() == JsonReader::Kind::kObject && IsJson(text);
}

// An object as it stands, or one in a string.
std::optional<std::string> ReadArguments(JsonReader& reader) {
  absl::string_view text;
  std::string string;
  if (reader.Peek() == JsonReader::Kind::kObject && reader.ReadText(text)) {
    return std::string(text);
  }
  if (reader.Peek() == JsonReader::Kind::kString && reader.ReadString(string) &&
      IsJsonObject(string)) {
    return string;
  }
  return std::nullopt;
}

bool AdmitsText(const TemplateJson& schema);

bool AnyAdmitsText(const TemplateJson& schemas) {
  return schemas.is_array() && std::any_of(schemas.begin(), schemas.end(), AdmitsText);
}

// Whether a value of the schema may be a string, as far as can be seen at once.
bool AdmitsText(const TemplateJson& schema) {
  if (!schema.is_object()) {
    return true;
  }
  if (const auto type = schema.find("type"); type != schema.end()) {
    return *type == "string" ||
           (type->is_array() && std::find(type->begin(), type->end(), "string") != type->end());
  }
  for (const char* const alternatives : {"anyOf", "oneOf"}) {
    if (const auto found = schema.find(alternatives); found != schema.end()) {
      return AnyAdmitsText(*found);
    }
  }
  return !schema.contains("$ref");
}

// Takes `open`NAME> from the beginning of `text`.
std::optional<std::string> ConsumeTag(absl::string_view& text, absl::string_view open) {
  text = absl::StripLeadingAsciiWhitespace(text);
  if (!absl::ConsumePrefix(&text, open)) {
    return std::nullopt;
  }
  const size_t end = text.find('>');
  if (end == absl::string_view::npos || end == 0) {
    return std::nullopt;
  }
  std::string name(absl::StripAsciiWhitespace(text.substr(0, end)));
  text.remove_prefix(end + 1);
  return name;
}

std::string Quoted(absl::string_view text) {
  return TemplateJson(std::string(text))
      .dump(-1, ' ', false, TemplateJson::error_handler_t::replace);
}

}  // namespace

JsonParameters FindJsonParameters(const TemplateJson& tools) {
  JsonParameters found;
  static const TemplateJson kNone = TemplateJson::object();
  const auto member = [](const TemplateJson& json, const char* name) -> const TemplateJson& {
    const auto at = json.is_object() ? json.find(name) : json.end();
    return json.is_object() && at != json.end() ? *at : kNone;
  };
  for (const TemplateJson& tool : tools) {
    const TemplateJson& function = member(tool, "function");
    const TemplateJson& name = member(function, "name");
    const TemplateJson& properties = member(member(function, "parameters"), "properties");
    if (!name.is_string() || !properties.is_object()) {
      continue;
    }
    for (const auto& [parameter, schema] : properties.items()) {
      if (!AdmitsText(schema)) {
        found[name.get<std::string>()].insert(parameter);
      }
    }
  }
  return found;
}

std::optional<ToolCall> ReadJsonCall(absl::string_view json, bool may_lack_arguments) {
  JsonReader reader(json, {});
  ToolCall call;
  std::optional<std::string> arguments;
  std::string key;
  reader.EnterObject();
  while (reader.NextMember(key)) {
    if (key == "name") {
      reader.ReadString(call.name);
    } else if (key == "arguments" || key == "parameters") {
      arguments = ReadArguments(reader);
      if (!arguments.has_value()) {
        return std::nullopt;
      }
    } else {
      reader.SkipValue();
    }
  }
  reader.Finish();
  if (!reader.status().ok() || call.name.empty() ||
      (!arguments.has_value() && !may_lack_arguments)) {
    return std::nullopt;
  }
  call.arguments = arguments.value_or("{}");
  return call;
}

std::optional<ToolCall> ReadTaggedCall(absl::string_view text,
                                       const JsonParameters& json_parameters) {
  constexpr absl::string_view kEndOfValue = "</parameter>";
  const std::optional<std::string> name = ConsumeTag(text, "<function=");
  if (!name.has_value() || name->empty()) {
    return std::nullopt;
  }
  ToolCall call = {*name, "{"};
  const auto known = json_parameters.find(*name);
  while (const std::optional<std::string> parameter = ConsumeTag(text, "<parameter=")) {
    const size_t end = text.find(kEndOfValue);
    if (end == absl::string_view::npos) {
      return std::nullopt;
    }
    absl::string_view value = text.substr(0, end);
    text.remove_prefix(end + kEndOfValue.size());
    absl::ConsumePrefix(&value, "\n");
    absl::ConsumeSuffix(&value, "\n");
    const bool is_json =
        known != json_parameters.end() && known->second.contains(*parameter) && IsJson(value);
    absl::StrAppend(&call.arguments, call.arguments.size() > 1 ? ", " : "", Quoted(*parameter),
                    ": ", is_json ? std::string(absl::StripAsciiWhitespace(value)) : Quoted(value));
  }
  text = absl::StripLeadingAsciiWhitespace(text);
  if (!absl::ConsumePrefix(&text, "</function>") || !absl::StripAsciiWhitespace(text).empty()) {
    return std::nullopt;
  }
  call.arguments += "}";
  return call;
}

}  // namespace nibble
