// Requests of OpenAI's API as they come in: JSON to what the engine understands. A field that this
// server does not honour is an error that names it; none is ignored.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/chat/chat_template.h"
#include "server/engine/text/model_text.h"
#include "server/engine/text/text_generation.h"

namespace nibble {

inline constexpr int64_t kPromptsMax = 64;        // Of one request to /v1/completions.
inline constexpr int64_t kMessagesMax = 4096;     // Of one request to /v1/chat/completions.
inline constexpr int64_t kCompletionTokens = 16;  // What OpenAI's completions generate if not told.

struct OpenAiRequest {
  std::string model;
  bool is_chat = false;
  bool stream = false;
  bool include_usage = false;      // In a stream; whole answers always have it.
  std::vector<TextRequest> texts;  // One for each prompt, all with the same options.

  bool wants_log_probabilities() const { return texts.front().sampling.top_log_probabilities >= 0; }
};

// Errors: INVALID_ARGUMENT that names "model" if there is none.
absl::StatusOr<std::string> ReadModelName(const TemplateJson& json);

// Renders and tokenizes. Takes up to seconds for megabytes of text: not for the HTTP server's
// thread.
//
// Errors: INVALID_ARGUMENT that names the field; those of ModelText.
absl::StatusOr<OpenAiRequest> ParseCompletion(const TemplateJson& json, const ModelText& text);
absl::StatusOr<OpenAiRequest> ParseChatCompletion(const TemplateJson& json, const ModelText& text,
                                                  int64_t vocabulary_size);

}  // namespace nibble
