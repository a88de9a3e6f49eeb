// Any bytes as a chat template, rendered for a small conversation. What is in front of a line
// "---" is the template; what is behind it, if it is JSON, are its variables.

#include <cstdint>
#include <string>

#include "kernels/check.h"
#include "loader/printable.h"
#include "server/engine/chat/chat_template.h"
#include "server/engine/chat/limits.h"

namespace nibble {
namespace {

constexpr absl::string_view kConversation = R"({
  "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Zoë?"},
    {"role": "assistant", "content": null, "tool_calls": [{"type": "function",
      "function": {"name": "f", "arguments": {"x": [1, 2.5, true, null]}}}]},
    {"role": "tool", "content": "7"}],
  "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
  "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})";

void CheckStatus(const absl::Status& status) {
  Check(absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status),
        "a template is wrong, or wants too much");
  Check(IsUtf8(status.message()), "messages are UTF-8");
  Check(static_cast<int64_t>(status.message().size()) <= 2 * jinja::kMessageBytesMax,
        "messages are short");
}

void CheckTemplate(absl::string_view source, const TemplateJson& variables) {
  const auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) {
    CheckStatus(parsed.status());
    return;
  }
  RenderOptions options;
  options.now = absl::UnixEpoch();
  options.zone = absl::UTCTimeZone();
  const auto prompt = parsed->Render(variables, options);
  if (!prompt.ok()) {
    CheckStatus(prompt.status());
    return;
  }
  Check(IsUtf8(*prompt), "a prompt is UTF-8");
  Check(static_cast<int64_t>(prompt->size()) <= jinja::kOutputBytesMax, "a prompt is bounded");
  Check(*prompt == parsed->Render(variables, options).value_or(""), "twice it is the same");
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using nibble::TemplateJson;
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find("\n---\n");
  if (line == absl::string_view::npos) {
    static const TemplateJson kVariables = TemplateJson::parse(nibble::kConversation);
    nibble::CheckTemplate(input, kVariables);
    return 0;
  }
  const std::string json(input.substr(line + 5));
  const TemplateJson variables = TemplateJson::parse(json, nullptr, /*allow_exceptions=*/false);
  nibble::CheckTemplate(input.substr(0, line),
                        variables.is_object() ? variables : TemplateJson::object());
  return 0;
}
