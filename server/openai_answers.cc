#include "server/openai_answers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/openai_tools.h"

namespace nibble {
namespace {

constexpr absl::string_view kDone = "data: [DONE]\n\n";

std::string Dump(const TemplateJson& json) {
  return json.dump(-1, ' ', false, TemplateJson::error_handler_t::replace);
}

}  // namespace

std::string ServerSentEvent(const TemplateJson& json) {
  return absl::StrCat("data: ", Dump(json), "\n\n");
}

OpenAiAnswers::OpenAiAnswers(const OpenAiRequest& request, std::shared_ptr<const ModelText> text,
                             absl::string_view id, absl::Time created)
    : text_(std::move(text)),
      own_id_(id),
      id_(absl::StrCat(request.is_chat ? "chatcmpl-" : "cmpl-", id)),
      created_seconds_(absl::ToUnixSeconds(created)),
      model_(request.model),
      is_chat_(request.is_chat),
      stream_(request.stream),
      include_usage_(request.include_usage),
      wants_log_probabilities_(request.wants_log_probabilities()),
      echo_(request.texts.front().echo),
      answers_(request.texts.front().answers),
      stop_token_ids_(request.texts.front().stop_token_ids) {
  for (const TextRequest& one : request.texts) {
    first_tokens_.push_back(one.prompt.empty() ? 0 : one.prompt.front());
    prompt_tokens_ += std::ssize(one.prompt);
    for (int64_t index = 0; index < answers_; ++index) {
      choices_.push_back({"", "", nullptr, OpenAiLogProbabilities(*text_, is_chat_), nullptr});
    }
  }
}

// The token that ended the answer is none of it, unless it is text.
bool OpenAiAnswers::IsTold(const GeneratedToken& token) const {
  if (token.of_prompt || std::find(stop_token_ids_.begin(), stop_token_ids_.end(), token.id) ==
                             stop_token_ids_.end()) {
    return true;
  }
  const absl::StatusOr<const Tokenizer*> tokenizer = text_->tokenizer();
  return tokenizer.ok() && !(*tokenizer)->IsSpecial(static_cast<uint32_t>(token.id));
}

TemplateJson OpenAiAnswers::Head() const {
  TemplateJson json = TemplateJson::object();
  json["id"] = id_;
  json["object"] = !is_chat_ ? "text_completion"
                   : stream_ ? "chat.completion.chunk"
                             : "chat.completion";
  json["created"] = created_seconds_;
  json["model"] = model_;
  json["choices"] = TemplateJson::array();
  return json;
}

// A message, or what a stream adds to it: takes what was collected.
TemplateJson OpenAiAnswers::MessageJson(Choice& choice) const {
  TemplateJson message = TemplateJson::object();
  const bool is_first = !std::exchange(choice.begun, true);
  const bool has_others = !choice.reasoning.empty() || !choice.calls.is_null();
  if (is_first) {
    message["role"] = "assistant";
  }
  if (!choice.text.empty() || (is_first && !has_others)) {
    message["content"] = std::exchange(choice.text, "");
  } else if (!stream_) {
    message["content"] = nullptr;
  }
  if (!choice.reasoning.empty()) {
    message["reasoning_content"] = std::exchange(choice.reasoning, "");
  }
  if (!choice.calls.is_null()) {
    message["tool_calls"] = std::exchange(choice.calls, nullptr);
  }
  if (!stream_) {
    message["refusal"] = nullptr;
  }
  return message;
}

// What was collected of the choice, and takes it.
TemplateJson OpenAiAnswers::ChoiceJson(size_t index) {
  Choice& choice = choices_[index];
  TemplateJson json = TemplateJson::object();
  json["index"] = index;
  if (!is_chat_) {
    json["text"] = std::exchange(choice.text, "");
  } else {
    json[stream_ ? "delta" : "message"] = MessageJson(choice);
  }
  json["logprobs"] = wants_log_probabilities_ && (!stream_ || !choice.log_probabilities.empty())
                         ? choice.log_probabilities.Take()
                         : TemplateJson();
  json["finish_reason"] = choice.finish_reason;
  return json;
}

TemplateJson OpenAiAnswers::UsageJson() const {
  TemplateJson json = TemplateJson::object();
  json["prompt_tokens"] = prompt_tokens_;
  json["completion_tokens"] = generated_tokens_;
  json["total_tokens"] = prompt_tokens_ + generated_tokens_;
  return json;
}

void OpenAiAnswers::Collect(const TextEvent& event, Choice& choice) {
  choice.text += event.text;
  choice.reasoning += event.reasoning;
  for (const ToolCall& call : event.calls) {
    TemplateJson json = ToolCallJson(call, absl::StrCat("call_", own_id_, call_count_++));
    if (stream_) {
      json["index"] = choice.call_count;
    }
    ++choice.call_count;
    choice.calls.push_back(std::move(json));
  }
  if (event.end.has_value()) {
    choice.finish_reason = std::string(event.finish_reason());
    generated_tokens_ += event.end->generated_tokens;
  }
}

std::string OpenAiAnswers::Add(size_t prompt_index, const TextEvent& event) {
  const size_t index =
      prompt_index * static_cast<size_t>(answers_) + static_cast<size_t>(event.index);
  Choice& choice = choices_[index];
  Collect(event, choice);
  if (wants_log_probabilities_) {
    if (echo_ && !std::exchange(choice.begun, true)) {
      choice.log_probabilities.AddFirst(first_tokens_[prompt_index]);
    }
    for (const GeneratedToken& token : event.tokens) {
      if (IsTold(token)) {
        choice.log_probabilities.Add(token);
      }
    }
  }
  const bool has_news = !choice.text.empty() || !choice.reasoning.empty() ||
                        !choice.calls.is_null() || !choice.log_probabilities.empty() ||
                        event.end.has_value();
  if (!stream_ || !has_news) {
    return "";
  }
  TemplateJson json = Head();
  json["choices"].push_back(ChoiceJson(index));
  if (include_usage_) {
    json["usage"] = nullptr;
  }
  return ServerSentEvent(json);
}

std::string OpenAiAnswers::Finish() {
  TemplateJson json = Head();
  json["usage"] = UsageJson();
  if (stream_) {
    return absl::StrCat(include_usage_ ? ServerSentEvent(json) : "", kDone);
  }
  for (size_t index = 0; index < choices_.size(); ++index) {
    json["choices"].push_back(ChoiceJson(index));
  }
  return Dump(json);
}

}  // namespace nibble
