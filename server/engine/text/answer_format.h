// How a model marks the parts of its answers, as its own chat template says.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/chat/chat_template.h"
#include "server/engine/text/tool_call.h"

namespace nibble {

inline constexpr absl::string_view kReasoningBegin = "<think>";
inline constexpr absl::string_view kReasoningEnd = "</think>";
inline constexpr absl::string_view kCallBegin = "<tool_call>";
inline constexpr absl::string_view kCallEnd = "</tool_call>";
inline constexpr absl::string_view kBareCallBegin = "<|python_tag|>";

enum class CallForm {
  kNone,    // Calls are not looked for.
  kJson,    // <tool_call>{"name": ..., "arguments": {...}}</tool_call>: Hermes, Qwen.
  kTagged,  // <tool_call><function=...><parameter=...>...: Qwen3-Coder, Qwen3.5.
  kBare,    // {"name": ..., "parameters": {...}} alone, or after <|python_tag|>: Llama 3.
};

struct AnswerFormat {
  bool has_reasoning = false;        // <think>...</think> comes first.
  bool begins_in_reasoning = false;  // The prompt has opened it.
  CallForm calls = CallForm::kNone;
  bool ends_at_call = false;       // The answer ends with its first call.
  JsonParameters json_parameters;  // For kTagged.

  // Answers have no parts.
  bool is_plain() const { return !has_reasoning && calls == CallForm::kNone; }
};

// `template_source` is the template that `prompt` was rendered by. `tools` is an array of tools in
// OpenAI's form, or anything else for a request without tools, whose answers have no calls.
AnswerFormat FindAnswerFormat(absl::string_view template_source, absl::string_view prompt,
                              const TemplateJson& tools);

// What a parser of the format looks for: where these are special tokens, it must see their text.
std::vector<absl::string_view> MarkersOf(const AnswerFormat& format);

}  // namespace nibble
