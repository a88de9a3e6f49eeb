#include "server/openai_chat.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "server/openai_request.h"
#include "server/request_fields.h"
#include "server/request_json.h"

namespace nibble {
namespace {

constexpr std::array<absl::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                     "tool"};

std::string At(absl::string_view name, size_t index) {
  return absl::StrCat(name, "[", index, "].");
}

// A string, or the text of parts.
absl::StatusOr<std::string> ReadContent(const TemplateJson& content, const std::string& name) {
  if (content.is_string()) {
    return content.get<std::string>();
  }
  if (!content.is_array()) {
    return BadField(name, "expected a string or an array of parts");
  }
  std::string text;
  for (size_t index = 0; index < content.size(); ++index) {
    RequestFields part(content[index], At(name, index));
    const std::string type = part.TakeString("type").value_or("");
    const std::optional<std::string> part_text = part.TakeString("text");
    if (type != "text") {
      part.Refuse("type", "expected \"text\", which is all that this server reads");
    } else if (!part_text.has_value()) {
      part.Refuse("text", "expected a string");
    }
    if (absl::Status status = part.Finish(); !status.ok()) {
      return status;
    }
    absl::StrAppend(&text, index == 0 ? "" : "\n", *part_text);
  }
  return text;
}

absl::StatusOr<TemplateJson> ReadToolCall(const TemplateJson& json, const std::string& prefix) {
  RequestFields call(json, prefix);
  TemplateJson read = TemplateJson::object();
  if (const std::optional<std::string> id = call.TakeString("id")) {
    read["id"] = *id;
  }
  if (call.TakeString("type").value_or("function") != "function") {
    call.Refuse("type", "expected \"function\"");
  }
  call.Take("index");  // Where a client sends back what it has put together from a stream.
  const TemplateJson* const function_json = call.TakeObject("function");
  if (function_json == nullptr) {
    call.Refuse("function", "expected an object");
  }
  if (absl::Status status = call.Finish(); !status.ok()) {
    return status;
  }
  RequestFields function(*function_json, absl::StrCat(prefix, "function."));
  const std::optional<std::string> name = function.TakeString("name");
  const std::string arguments = function.TakeString("arguments").value_or("");
  if (!name.has_value()) {
    function.Refuse("name", "expected a string");
  }
  absl::StatusOr<TemplateJson> parsed = ParseNestedJson(arguments.empty() ? "{}" : arguments);
  if (!parsed.ok()) {
    function.Refuse("arguments", parsed.status().message());
  } else if (!parsed->is_object()) {
    function.Refuse("arguments", "expected a JSON object in a string");
  }
  if (absl::Status status = function.Finish(); !status.ok()) {
    return status;
  }
  read["type"] = "function";
  read["function"] = TemplateJson::object();
  read["function"]["name"] = *name;
  read["function"]["arguments"] = *std::move(parsed);
  return read;
}

absl::StatusOr<TemplateJson> ReadToolCalls(const TemplateJson& calls, const std::string& name) {
  TemplateJson read = TemplateJson::array();
  for (size_t index = 0; index < calls.size(); ++index) {
    absl::StatusOr<TemplateJson> call = ReadToolCall(calls[index], At(name, index));
    if (!call.ok()) {
      return call.status();
    }
    read.push_back(*std::move(call));
  }
  return read;
}

absl::StatusOr<TemplateJson> ReadMessage(const TemplateJson& json, const std::string& prefix) {
  RequestFields message(json, prefix);
  TemplateJson read = TemplateJson::object();
  const std::string role = message.TakeString("role").value_or("");
  if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
    message.Refuse("role", "expected system, developer, user, assistant or tool");
  }
  read["role"] = role;
  const TemplateJson* const calls = message.TakeArray("tool_calls");
  const TemplateJson* const content = message.Take("content");
  read["content"] = "";
  if (content != nullptr) {
    absl::StatusOr<std::string> text = ReadContent(*content, absl::StrCat(prefix, "content"));
    message.Update(text.status());
    read["content"] = text.ok() ? *std::move(text) : "";
  } else if (role != "assistant") {
    message.Refuse("content", "expected a string or an array of parts");
  }
  for (const char* const name : {"name", "tool_call_id", "reasoning_content"}) {
    if (const std::optional<std::string> value = message.TakeString(name)) {
      read[name] = *value;
    }
  }
  if (calls != nullptr && role != "assistant") {
    message.Refuse("tool_calls", "expected of an assistant alone");
  } else if (calls != nullptr && !calls->empty()) {
    absl::StatusOr<TemplateJson> read_calls =
        ReadToolCalls(*calls, absl::StrCat(prefix, "tool_calls"));
    message.Update(read_calls.status());
    read["tool_calls"] = read_calls.ok() ? *std::move(read_calls) : TemplateJson();
  }
  if (absl::Status status = message.Finish(); !status.ok()) {
    return status;
  }
  return read;
}

}  // namespace

absl::StatusOr<TemplateJson> ReadMessages(const TemplateJson& messages) {
  if (messages.empty() || std::ssize(messages) > kMessagesMax) {
    return BadField("messages",
                    absl::StrCat("expected 1 to ", kMessagesMax, ", found ", messages.size()));
  }
  TemplateJson read = TemplateJson::array();
  for (size_t index = 0; index < messages.size(); ++index) {
    absl::StatusOr<TemplateJson> message = ReadMessage(messages[index], At("messages", index));
    if (!message.ok()) {
      return message.status();
    }
    read.push_back(*std::move(message));
  }
  return read;
}

}  // namespace nibble
