// Log-probabilities of tokens in the two forms of OpenAI's API.

#pragma once

#include <cstdint>
#include <string>

#include "server/engine/chat/chat_template.h"
#include "server/engine/generation.h"
#include "server/engine/text/model_text.h"

namespace nibble {

// Collects tokens of one answer, until they are taken for a piece of it.
class OpenAiLogProbabilities {
 public:
  // `text` must outlive this.
  OpenAiLogProbabilities(const ModelText& text, bool is_chat) : text_(text), is_chat_(is_chat) {}

  // The first token of a prompt that is echoed: nothing comes before it, so it has no probability.
  void AddFirst(int32_t id);
  void Add(const GeneratedToken& token);

  bool empty() const { return count_ == 0; }

  // What was added since the last time. Chat: {"content": [{token, logprob, bytes, top_logprobs}],
  // "refusal": null}. Completions: {tokens, token_logprobs, top_logprobs, text_offset}, arrays of
  // equal length; an offset counts characters of the answer.
  TemplateJson Take();

 private:
  void AddToCompletion(int32_t id, TemplateJson log_probability, TemplateJson top);

  const ModelText& text_;
  const bool is_chat_;
  int64_t count_ = 0;
  int64_t characters_ = 0;  // Of the tokens of a completion.
  TemplateJson content_ = TemplateJson::array();
  TemplateJson tokens_ = TemplateJson::array();
  TemplateJson token_log_probabilities_ = TemplateJson::array();
  TemplateJson top_ = TemplateJson::array();
  TemplateJson offsets_ = TemplateJson::array();
};

}  // namespace nibble
