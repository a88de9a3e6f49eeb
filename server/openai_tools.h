// Tools of OpenAI's API: what a request wants of them, and calls as clients see them.

#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/chat/chat_template.h"
#include "server/engine/text/tool_call.h"
#include "server/request_fields.h"

namespace nibble {

struct ToolChoice {
  TemplateJson tools;  // What the template sees; null without any.
  TemplateJson
      required;  // The answer is a call of one of these; null where it is the model's choice.
  bool is_parallel = true;  // An answer may have several calls.
};

// `tools`, checked and otherwise as they are.
//
// Errors: INVALID_ARGUMENT that names the field ("tools[0].function.name").
absl::StatusOr<TemplateJson> ReadTools(const TemplateJson& tools);

// Takes tools, tool_choice and parallel_tool_calls.
ToolChoice TakeToolChoice(RequestFields& fields);

// {"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}
TemplateJson ToolCallJson(const ToolCall& call, absl::string_view id);

}  // namespace nibble
