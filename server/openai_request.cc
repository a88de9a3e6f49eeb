#include "server/openai_request.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "kernels/sample_ops.h"
#include "server/openai_chat.h"
#include "server/openai_response_format.h"
#include "server/openai_tools.h"
#include "server/request_fields.h"

namespace nibble {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 40;  // More than any context; the engine stops at its.

// {"50256": -100}.
void TakeLogitBias(RequestFields& fields, SamplingOptions& sampling) {
  const TemplateJson* const biases = fields.TakeObject("logit_bias");
  if (biases == nullptr) {
    return;
  }
  for (const auto& [name, bias] : biases->items()) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(name, &id) || !bias.is_number()) {
      fields.Refuse("logit_bias", "expected token ids with a number each");
      return;
    }
    sampling.logit_biases.emplace_back(id, static_cast<float>(bias.get<double>()));
  }
}

void TakeSampling(RequestFields& fields, SamplingOptions& sampling) {
  const auto take = [&fields](const char* name, float& value) {
    value = fields.TakeFloat(name).value_or(value);
  };
  take("temperature", sampling.temperature);
  take("top_p", sampling.top_p);
  take("min_p", sampling.min_p);
  take("repetition_penalty", sampling.repetition_penalty);
  take("frequency_penalty", sampling.frequency_penalty);
  take("presence_penalty", sampling.presence_penalty);
  // -1 is what some clients say for all.
  sampling.top_k =
      std::max<int64_t>(0, fields.TakeInteger("top_k", -1, std::numeric_limits<int32_t>::max())
                               .value_or(sampling.top_k));
  TakeLogitBias(fields, sampling);
  const std::optional<int64_t> seed = fields.TakeInteger(
      "seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  sampling.seed = seed.has_value() ? static_cast<uint64_t>(*seed) : DrawSeed();
}

bool IsTokens(const TemplateJson& json) {
  return json.is_array() && !json.empty() &&
         std::all_of(json.begin(), json.end(), [](const TemplateJson& id) {
           return id.is_number_integer() && id.get<int64_t>() >= 0 &&
                  id.get<int64_t>() <= std::numeric_limits<int32_t>::max();
         });
}

void TakeStops(RequestFields& fields, const ModelText& text, TextRequest& request) {
  if (const TemplateJson* const stop = fields.Take("stop")) {
    const TemplateJson strings = stop->is_string() ? TemplateJson::array({*stop}) : *stop;
    if (!strings.is_array() ||
        !std::all_of(strings.begin(), strings.end(),
                     [](const TemplateJson& one) { return one.is_string(); })) {
      fields.Refuse("stop", "expected a string or an array of strings");
      return;
    }
    for (const TemplateJson& one : strings) {
      request.stop.push_back(one.get<std::string>());
    }
    fields.Update(CheckStopStrings(request.stop));
  }
  if (const TemplateJson* const ids = fields.TakeArray("stop_token_ids")) {
    if (!ids->empty() && !IsTokens(*ids)) {
      fields.Refuse("stop_token_ids", "expected an array of token ids");
      return;
    }
    request.stop_token_ids = ids->get<std::vector<int32_t>>();
  }
  if (!fields.TakeBool("ignore_eos").value_or(false)) {
    const std::vector<int32_t>& own = text.defaults().stop_token_ids;
    request.stop_token_ids.insert(request.stop_token_ids.end(), own.begin(), own.end());
  }
}

void TakeStreaming(RequestFields& fields, OpenAiRequest& request) {
  request.stream = fields.TakeBool("stream").value_or(false);
  const TemplateJson* const options = fields.TakeObject("stream_options");
  if (options == nullptr) {
    return;
  }
  if (!request.stream) {
    fields.Refuse("stream_options", "expected with \"stream\": true alone");
    return;
  }
  RequestFields stream_options(*options, "stream_options.");
  request.include_usage = stream_options.TakeBool("include_usage").value_or(false);
  fields.Update(stream_options.Finish());
}

// What both kinds of request have.
TextRequest TakeCommon(RequestFields& fields, const ModelText& text, OpenAiRequest& request) {
  TextRequest one;
  request.model = fields.TakeString("model").value_or("");
  fields.TakeString("user");  // Names the end user, and asks for nothing.
  one.sampling = text.defaults().sampling;
  TakeSampling(fields, one.sampling);
  TakeStops(fields, text, one);
  TakeStreaming(fields, request);
  one.answers = fields.TakeInteger("n", 1, kAnswersMax).value_or(1);
  return one;
}

absl::StatusOr<std::vector<int32_t>> ReadPrompt(const TemplateJson& prompt, const ModelText& text,
                                                const EncodeOptions& options) {
  if (IsTokens(prompt)) {
    return prompt.get<std::vector<int32_t>>();
  }
  if (!prompt.is_string()) {
    return BadField("prompt", "expected a string, token ids, or an array of either");
  }
  return text.Encode(prompt.get_ref<const std::string&>(), options);
}

absl::StatusOr<std::vector<std::vector<int32_t>>> ReadPrompts(const TemplateJson& json,
                                                              const ModelText& text,
                                                              const EncodeOptions& options) {
  const TemplateJson prompts =
      json.is_array() && !IsTokens(json) ? json : TemplateJson::array({json});
  if (prompts.empty() || std::ssize(prompts) > kPromptsMax) {
    return BadField(
        "prompt", absl::StrCat("expected 1 to ", kPromptsMax, " prompts, found ", prompts.size()));
  }
  std::vector<std::vector<int32_t>> all;
  for (const TemplateJson& prompt : prompts) {
    absl::StatusOr<std::vector<int32_t>> ids = ReadPrompt(prompt, text, options);
    if (!ids.ok()) {
      return ids.status();
    }
    all.push_back(*std::move(ids));
  }
  return all;
}

// The chat's messages, tools and whatever else its template is to see.
TemplateJson TakeVariables(RequestFields& fields, const ToolChoice& choice) {
  TemplateJson variables = TemplateJson::object();
  if (const TemplateJson* const given = fields.TakeObject("chat_template_kwargs")) {
    variables = *given;
    for (const char* const own : {"messages", "tools", "add_generation_prompt"}) {
      if (variables.contains(own)) {
        fields.Refuse("chat_template_kwargs",
                      absl::StrCat("expected without ", own, ", which the request sets"));
      }
    }
  }
  if (const TemplateJson* const messages = fields.TakeArray("messages")) {
    absl::StatusOr<TemplateJson> read = ReadMessages(*messages);
    fields.Update(read.status());
    variables["messages"] = read.ok() ? *std::move(read) : TemplateJson();
  } else {
    fields.Refuse("messages", "expected an array of messages");
  }
  if (!choice.tools.is_null()) {
    variables["tools"] = choice.tools;
  }
  variables["add_generation_prompt"] = true;
  return variables;
}

void TakeChatLogProbabilities(RequestFields& fields, SamplingOptions& sampling) {
  const bool wanted = fields.TakeBool("logprobs").value_or(false);
  const std::optional<int64_t> top = fields.TakeInteger("top_logprobs", 0, kTopLogProbabilitiesMax);
  if (wanted) {
    sampling.top_log_probabilities = top.value_or(0);
  } else if (top.has_value()) {
    fields.Refuse("top_logprobs", "expected with \"logprobs\": true alone");
  }
}

void TakeChatTokensMax(RequestFields& fields, TextRequest& request) {
  const std::optional<int64_t> newer = fields.TakeInteger("max_completion_tokens", 1, kTokensMax);
  const std::optional<int64_t> older = fields.TakeInteger("max_tokens", 1, kTokensMax);
  if (newer.has_value() && older.has_value() && *newer != *older) {
    fields.Refuse("max_tokens", "expected what max_completion_tokens says, or neither");
  }
  request.tokens_max = newer.value_or(older.value_or(0));
}

}  // namespace

absl::StatusOr<std::string> ReadModelName(const TemplateJson& json) {
  const auto model = json.find("model");
  if (model == json.end() || !model->is_string() || model->get_ref<const std::string&>().empty()) {
    return BadField("model", "expected the name of a loaded model");
  }
  return model->get<std::string>();
}

absl::StatusOr<OpenAiRequest> ParseCompletion(const TemplateJson& json, const ModelText& text) {
  RequestFields fields(json);
  OpenAiRequest request;
  TextRequest one = TakeCommon(fields, text, request);
  one.tokens_max = fields.TakeInteger("max_tokens", 1, kTokensMax).value_or(kCompletionTokens);
  one.sampling.top_log_probabilities =
      fields.TakeInteger("logprobs", 0, kTopLogProbabilitiesMax).value_or(-1);
  one.echo = fields.TakeBool("echo").value_or(false);
  if (fields.TakeInteger("best_of", 1, kAnswersMax).value_or(one.answers) != one.answers) {
    fields.Refuse("best_of", "expected what n says: answers are not chosen among");
  }
  EncodeOptions options;
  options.add_special_tokens = fields.TakeBool("add_special_tokens").value_or(true);
  const TemplateJson* const prompt = fields.Take("prompt");
  if (prompt == nullptr) {
    fields.Refuse("prompt", "expected a string, token ids, or an array of either");
  }
  if (absl::Status status = fields.Finish(); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::vector<std::vector<int32_t>>> prompts = ReadPrompts(*prompt, text, options);
  if (!prompts.ok()) {
    return prompts.status();
  }
  for (std::vector<int32_t>& ids : *prompts) {
    request.texts.push_back(one);
    request.texts.back().prompt = std::move(ids);
  }
  return request;
}

absl::StatusOr<OpenAiRequest> ParseChatCompletion(const TemplateJson& json, const ModelText& text,
                                                  int64_t vocabulary_size) {
  RequestFields fields(json);
  OpenAiRequest request;
  request.is_chat = true;
  TextRequest one = TakeCommon(fields, text, request);
  TakeChatTokensMax(fields, one);
  TakeChatLogProbabilities(fields, one.sampling);
  ResponseFormat response_format;
  if (const TemplateJson* const given = fields.TakeObject("response_format")) {
    absl::StatusOr<ResponseFormat> read = ReadResponseFormat(*given);
    fields.Update(read.status());
    response_format = read.ok() ? *std::move(read) : ResponseFormat();
  }
  const ToolChoice choice = TakeToolChoice(fields);
  if (!choice.required.is_null() && response_format.is_json) {
    fields.Refuse("tool_choice", "expected \"auto\" or \"none\" with a response_format");
  }
  TemplateJson variables = TakeVariables(fields, choice);
  if (absl::Status status = fields.Finish(); !status.ok()) {
    return status;
  }
  absl::StatusOr<RenderedPrompt> rendered = text.Render(std::move(variables));
  if (!rendered.ok()) {
    return rendered.status();
  }
  // The template has written the special tokens itself.
  absl::StatusOr<std::vector<int32_t>> ids =
      text.Encode(rendered->text, {.add_special_tokens = false, .parse_special = true});
  if (!ids.ok()) {
    return ids.status();
  }
  one.prompt = *std::move(ids);
  one.format = std::move(rendered->format);
  one.format->ends_at_call = !choice.is_parallel;
  if (response_format.is_json) {
    one.format->calls =
        CallForm::kNone;  // What follows a format is no call, whatever it looks like.
  }
  if (absl::Status status = Constrain(response_format, choice, text, vocabulary_size, one);
      !status.ok()) {
    return status;
  }
  request.texts.push_back(std::move(one));
  return request;
}

}  // namespace nibble
