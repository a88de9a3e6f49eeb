#include "server/generation_messages.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "server/engine/text/response_format.h"
#include "server/openai_tools.h"

namespace nibble {
namespace {

constexpr int kMessagesMax = 4096;
constexpr int kJsonDepthMax = 64;

// Numbers of a request that the engine would take for others.
int64_t ToSigned(uint64_t value) {
  return static_cast<int64_t>(std::min(value, uint64_t{1} << 40));
}

absl::StatusOr<TemplateJson> ParseJson(const char* field, const std::string& text) {
  const auto depth_limited = [](int depth, TemplateJson::parse_event_t, TemplateJson&) {
    return depth < kJsonDepthMax;
  };
  TemplateJson json = TemplateJson::parse(text, depth_limited, false);
  if (json.is_discarded()) {
    return BadField(field, absl::StrCat("expected JSON of a depth below ", kJsonDepthMax,
                                        ", found something else"));
  }
  return json;
}

absl::StatusOr<TemplateJson> MessageJson(const v1::Message& message) {
  TemplateJson json = TemplateJson::object();
  json["role"] = message.role();
  json["content"] = message.content();
  if (!message.name().empty()) {
    json["name"] = message.name();
  }
  if (!message.tool_call_id().empty()) {
    json["tool_call_id"] = message.tool_call_id();
  }
  if (!message.reasoning_content().empty()) {
    json["reasoning_content"] = message.reasoning_content();
  }
  if (!message.tool_calls_json().empty()) {
    absl::StatusOr<TemplateJson> calls =
        ParseJson("messages.tool_calls_json", message.tool_calls_json());
    if (!calls.ok()) {
      return calls.status();
    }
    json["tool_calls"] = *std::move(calls);
  }
  return json;
}

absl::StatusOr<RenderedPrompt> RenderMessages(const ModelText& text, const PromptInput& input) {
  if (input.messages->size() > kMessagesMax) {
    return BadField("messages", absl::StrCat("expected at most ", kMessagesMax, ", found ",
                                             input.messages->size()));
  }
  TemplateJson variables = TemplateJson::object();
  if (input.variables != nullptr) {
    for (const auto& [name, value] : *input.variables) {
      absl::StatusOr<TemplateJson> json = ParseJson("template_variables", value);
      if (!json.ok()) {
        return json.status();
      }
      variables[name] = *std::move(json);
    }
  }
  TemplateJson messages = TemplateJson::array();
  for (const v1::Message& message : *input.messages) {
    absl::StatusOr<TemplateJson> json = MessageJson(message);
    if (!json.ok()) {
      return json.status();
    }
    messages.push_back(*std::move(json));
  }
  variables["messages"] = std::move(messages);
  variables["add_generation_prompt"] = input.add_generation_prompt;
  if (input.tools_json != nullptr && !input.tools_json->empty()) {
    absl::StatusOr<TemplateJson> tools = ParseJson("tools_json", *input.tools_json);
    if (!tools.ok()) {
      return tools.status();
    }
    variables["tools"] = *std::move(tools);
  }
  return text.Render(std::move(variables));
}

void ReadSampling(const v1::GenerateRequest& message, SamplingOptions& sampling) {
  if (message.has_temperature()) {
    sampling.temperature = message.temperature();
  }
  if (message.has_top_k()) {
    sampling.top_k = ToSigned(message.top_k());
  }
  if (message.has_top_p()) {
    sampling.top_p = message.top_p();
  }
  if (message.has_min_p()) {
    sampling.min_p = message.min_p();
  }
  if (message.has_repetition_penalty()) {
    sampling.repetition_penalty = message.repetition_penalty();
  }
  if (message.has_frequency_penalty()) {
    sampling.frequency_penalty = message.frequency_penalty();
  }
  if (message.has_presence_penalty()) {
    sampling.presence_penalty = message.presence_penalty();
  }
  for (const auto& [id, bias] : message.logit_bias()) {
    sampling.logit_biases.emplace_back(id, bias);
  }
  sampling.seed = message.has_seed() ? message.seed() : DrawSeed();
  if (message.has_logprobs()) {
    sampling.top_log_probabilities = int64_t{message.logprobs()};
  }
}

std::string CallsJson(const std::vector<ToolCall>& calls) {
  TemplateJson json = TemplateJson::array();
  for (const ToolCall& call : calls) {
    json.push_back(
        ToolCallJson(call, absl::StrCat("call_", absl::Hex(DrawSeed(), absl::kZeroPad16))));
  }
  return json.dump(-1, ' ', false, TemplateJson::error_handler_t::replace);
}

}  // namespace

absl::StatusOr<Prompt> ReadPrompt(const ModelText& text, const PromptInput& input) {
  const bool has_ids = input.token_ids != nullptr && !input.token_ids->empty();
  const bool has_messages = input.messages != nullptr && !input.messages->empty();
  const bool has_text = input.text != nullptr && !input.text->empty();
  if (int{has_ids} + int{has_messages} + int{has_text} != 1) {
    return BadField("prompt",
                    "expected one of text, token_ids and messages, and that it is not empty");
  }
  Prompt prompt;
  if (has_ids) {
    prompt.token_ids.assign(input.token_ids->begin(), input.token_ids->end());
    return prompt;
  }
  EncodeOptions options;
  options.add_special_tokens = input.add_special_tokens;
  options.parse_special = input.parse_special;
  if (has_messages) {
    absl::StatusOr<RenderedPrompt> rendered = RenderMessages(text, input);
    if (!rendered.ok()) {
      return rendered.status();
    }
    prompt.rendered = std::move(rendered->text);
    prompt.format = std::move(rendered->format);
    // The template has written the special tokens itself.
    options.add_special_tokens = false;
    options.parse_special = true;
  }
  absl::StatusOr<std::vector<int32_t>> ids =
      text.Encode(has_messages ? prompt.rendered : *input.text, options);
  if (!ids.ok()) {
    return ids.status();
  }
  prompt.token_ids = *std::move(ids);
  return prompt;
}

absl::StatusOr<TextRequest> ParseGenerate(const v1::GenerateRequest& message, const ModelText& text,
                                          int64_t vocabulary_size) {
  PromptInput input;
  input.text = &message.prompt();
  input.token_ids = &message.token_ids();
  input.messages = &message.messages();
  input.tools_json = &message.tools_json();
  input.variables = &message.template_variables();
  input.parse_special = message.parse_special();
  absl::StatusOr<Prompt> prompt = ReadPrompt(text, input);
  if (!prompt.ok()) {
    return prompt.status();
  }
  if (message.has_max_tokens() && message.max_tokens() == 0) {
    return BadField("max_tokens", "expected at least 1, found 0");
  }
  for (const int32_t id : message.stop_token_ids()) {
    if (id < 0 || id >= vocabulary_size) {
      return BadField("stop_token_ids",
                      absl::StrCat("expected 0 to ", vocabulary_size - 1, ", found ", id));
    }
  }
  TextRequest request;
  const v1::ResponseFormat& format = message.response_format();
  if (message.split_answer()) {
    request.format = std::move(prompt->format);
  }
  if (format.json_object() || format.has_json_schema()) {
    // What follows a format is no call, whatever it looks like.
    AnswerFormat answer = request.format.value_or(AnswerFormat());
    answer.calls = CallForm::kNone;
    absl::StatusOr<ConstraintMaker> maker = MakeJsonFormat(
        format.has_json_schema() ? std::optional(format.json_schema()) : std::nullopt, answer, text,
        vocabulary_size);
    if (!maker.ok()) {
      return absl::IsInvalidArgument(maker.status())
                 ? BadField("response_format.json_schema", maker.status().message())
                 : maker.status();
    }
    request.format = std::move(answer);
    request.make_constraint = *std::move(maker);
  }
  request.prompt = std::move(prompt->token_ids);
  request.tokens_max = ToSigned(message.max_tokens());
  request.sampling = text.defaults().sampling;
  ReadSampling(message, request.sampling);
  request.answers = message.n() == 0 ? 1 : int64_t{message.n()};
  request.stop.assign(message.stop().begin(), message.stop().end());
  request.stop_token_ids.assign(message.stop_token_ids().begin(), message.stop_token_ids().end());
  if (!message.ignore_eos()) {
    const std::vector<int32_t>& own = text.defaults().stop_token_ids;
    request.stop_token_ids.insert(request.stop_token_ids.end(), own.begin(), own.end());
  }
  request.echo = message.echo();
  return request;
}

v1::GenerateResponse GenerateMessage(const TextEvent& event, bool log_probabilities) {
  v1::GenerateResponse message;
  message.set_index(static_cast<uint32_t>(event.index));
  message.set_text(event.text);
  message.set_reasoning(event.reasoning);
  if (!event.calls.empty()) {
    message.set_tool_calls_json(CallsJson(event.calls));
  }
  for (const GeneratedToken& token : event.tokens) {
    message.add_token_ids(token.id);
    if (log_probabilities) {
      v1::TokenLogprob& logprob = *message.add_logprobs();
      logprob.set_token_id(token.id);
      logprob.set_logprob(token.log_probability);
      for (const auto& [id, log_probability] : token.top) {
        v1::TopLogprob& top = *logprob.add_top();
        top.set_token_id(id);
        top.set_logprob(log_probability);
      }
    }
  }
  if (event.end.has_value()) {
    message.set_finish_reason(std::string(event.finish_reason()));
    message.mutable_usage()->set_prompt_tokens(static_cast<uint64_t>(event.end->prompt_tokens));
    message.mutable_usage()->set_generated_tokens(
        static_cast<uint64_t>(event.end->generated_tokens));
  }
  return message;
}

}  // namespace nibble
