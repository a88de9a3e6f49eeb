#include "server/openai_tools.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// {"type": "function", "function": {"name": ...}}: the name.
absl::StatusOr<std::string> ReadNamedChoice(const TemplateJson& choice) {
  RequestFields fields(choice, "tool_choice.");
  if (fields.TakeString("type").value_or("") != "function") {
    fields.Refuse("type", "expected \"function\"");
  }
  const TemplateJson* const function_json = fields.TakeObject("function");
  if (function_json == nullptr) {
    fields.Refuse("function", "expected an object");
  }
  if (absl::Status status = fields.Finish(); !status.ok()) {
    return status;
  }
  RequestFields function(*function_json, "tool_choice.function.");
  const std::optional<std::string> name = function.TakeString("name");
  if (!name.has_value()) {
    function.Refuse("name", "expected a string");
  }
  if (absl::Status status = function.Finish(); !status.ok()) {
    return status;
  }
  return *name;
}

// The tool of that name, in a list of its own.
TemplateJson FindNamed(const TemplateJson& tools, const std::string& name) {
  for (const TemplateJson& tool : tools) {
    if (tool["function"]["name"] == name) {
      return TemplateJson::array({tool});
    }
  }
  return {};
}

}  // namespace

absl::StatusOr<TemplateJson> ReadTools(const TemplateJson& tools) {
  for (size_t index = 0; index < tools.size(); ++index) {
    RequestFields tool(tools[index], absl::StrCat("tools[", index, "]."));
    if (tool.TakeString("type").value_or("") != "function") {
      tool.Refuse("type", "expected \"function\"");
    }
    const TemplateJson* const function_json = tool.TakeObject("function");
    if (function_json == nullptr) {
      tool.Refuse("function", "expected an object");
    }
    if (absl::Status status = tool.Finish(); !status.ok()) {
      return status;
    }
    RequestFields function(*function_json, absl::StrCat("tools[", index, "].function."));
    if (!function.TakeString("name").has_value()) {
      function.Refuse("name", "expected a string");
    }
    function.TakeString("description");
    function.TakeObject("parameters");
    if (function.TakeBool("strict").value_or(false)) {
      function.Refuse("strict", "expected false: calls are not held to their schema");
    }
    if (absl::Status status = function.Finish(); !status.ok()) {
      return status;
    }
  }
  return tools;
}

ToolChoice TakeToolChoice(RequestFields& fields) {
  ToolChoice taken;
  taken.is_parallel = fields.TakeBool("parallel_tool_calls").value_or(true);
  const TemplateJson* const choice = fields.Take("tool_choice");
  if (const TemplateJson* const tools = fields.TakeArray("tools");
      tools != nullptr && !tools->empty() && (choice == nullptr || *choice != "none")) {
    absl::StatusOr<TemplateJson> read = ReadTools(*tools);
    fields.Update(read.status());
    taken.tools = read.ok() ? *std::move(read) : TemplateJson();
  }
  if (choice == nullptr || *choice == "auto" || *choice == "none" || !fields.status().ok()) {
    return taken;
  }
  if (*choice == "required") {
    taken.required = taken.tools;
  } else if (choice->is_object()) {
    const absl::StatusOr<std::string> name = ReadNamedChoice(*choice);
    fields.Update(name.status());
    taken.required = name.ok() ? FindNamed(taken.tools, *name) : TemplateJson();
  } else {
    fields.Refuse("tool_choice", "expected \"none\", \"auto\", \"required\" or a function's name");
  }
  if (taken.required.is_null()) {
    fields.Refuse("tool_choice", "expected with tools, and the name of one of them");
  }
  return taken;
}

TemplateJson ToolCallJson(const ToolCall& call, absl::string_view id) {
  TemplateJson json = TemplateJson::object();
  json["id"] = std::string(id);
  json["type"] = "function";
  json["function"] = TemplateJson::object();
  json["function"]["name"] = call.name;
  json["function"]["arguments"] = call.arguments;
  return json;
}

}  // namespace nibble
