// What an answer of OpenAI's API is held to: a response format, or a call.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/chat/chat_template.h"
#include "server/engine/text/model_text.h"
#include "server/engine/text/text_generation.h"
#include "server/openai_tools.h"

namespace nibble {

// What `response_format` asks for.
struct ResponseFormat {
  bool is_json = false;
  std::optional<std::string> schema;
};

// The one place that knows which formats there are.
//
// Errors: INVALID_ARGUMENT that names the field.
absl::StatusOr<ResponseFormat> ReadResponseFormat(const TemplateJson& json);

// Makes the answer follow the format, or be a call that `choice` requires.
//
// Requires: `request` has a format of answers.
// Errors: INVALID_ARGUMENT that names the field; those of ModelText::Vocabulary.
absl::Status Constrain(const ResponseFormat& format, const ToolChoice& choice,
                       const ModelText& text, int64_t vocabulary_size, TextRequest& request);

}  // namespace nibble
