// Answers of OpenAI's API as they go out: the engine's events to JSON, whole or as a stream.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/text/text_generation.h"
#include "server/openai_log_probabilities.h"
#include "server/openai_request.h"

namespace nibble {

// One line of a stream: "data: ...\n\n".
std::string ServerSentEvent(const TemplateJson& json);

// Of one request. Answer i to prompt p is the choice p * n + i. Belongs to one thread.
class OpenAiAnswers {
 public:
  // `id` is the answer's name without its kind; `created` is now.
  OpenAiAnswers(const OpenAiRequest& request, std::shared_ptr<const ModelText> text,
                absl::string_view id, absl::Time created);

  // Takes an event of prompt `prompt_index`. Returns: what a stream sends for it, perhaps nothing;
  // of an answer that is sent whole always nothing.
  std::string Add(size_t prompt_index, const TextEvent& event);

  // After the last event. Returns: what ends the stream, or the whole answer.
  std::string Finish();

 private:
  struct Choice {
    // What was not sent yet.
    std::string text;
    std::string reasoning;
    TemplateJson calls;  // An array, or null.
    OpenAiLogProbabilities log_probabilities;
    TemplateJson finish_reason;  // Null until it has ended.
    bool begun = false;
    size_t call_count = 0;
  };

  bool IsTold(const GeneratedToken& token) const;
  TemplateJson Head() const;
  void Collect(const TextEvent& event, Choice& choice);
  TemplateJson MessageJson(Choice& choice) const;
  TemplateJson ChoiceJson(size_t index);
  TemplateJson UsageJson() const;

  const std::shared_ptr<const ModelText> text_;
  const std::string own_id_;  // Without its kind.
  const std::string id_;
  const int64_t created_seconds_;
  const std::string model_;
  const bool is_chat_;
  const bool stream_;
  const bool include_usage_;
  const bool wants_log_probabilities_;
  const bool echo_;
  const int64_t answers_;  // n.
  const std::vector<int32_t> stop_token_ids_;
  std::vector<int32_t> first_tokens_;  // Of each prompt.
  int64_t prompt_tokens_ = 0;
  int64_t generated_tokens_ = 0;
  size_t call_count_ = 0;  // Of all choices: numbers their ids.
  std::vector<Choice> choices_;
};

}  // namespace nibble
