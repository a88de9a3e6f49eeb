// Requests for text as they come in, and answers as they go out: messages of the wire contract and
// what the engine understands.

#pragma once

#include <nibble/v1/generation.pb.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/text/model_text.h"
#include "server/engine/text/text_generation.h"

namespace nibble {

// Text that becomes a prompt, in one of its three forms, and how it is to be read.
struct PromptInput {
  const std::string* text = nullptr;
  const google::protobuf::RepeatedField<int32_t>* token_ids = nullptr;
  const google::protobuf::RepeatedPtrField<v1::Message>* messages = nullptr;
  const std::string* tools_json = nullptr;
  const google::protobuf::Map<std::string, std::string>* variables = nullptr;
  bool add_special_tokens = true;
  bool add_generation_prompt = true;
  bool parse_special = false;
};

struct Prompt {
  std::vector<int32_t> token_ids;
  std::string rendered;  // By the chat template, of messages.
  AnswerFormat format;   // Of messages: what the template says of answers.
};

// Renders and tokenizes. Takes up to seconds for megabytes of text: not for a thread of gRPC.
//
// Errors: INVALID_ARGUMENT unless exactly one form is given, or for JSON that is none, naming the
//   field; those of ModelText.
absl::StatusOr<Prompt> ReadPrompt(const ModelText& text, const PromptInput& input);

// Errors: those of ReadPrompt; INVALID_ARGUMENT that names the field; UNIMPLEMENTED for what this
//   version does not do.
absl::StatusOr<TextRequest> ParseGenerate(const v1::GenerateRequest& message, const ModelText& text,
                                          int64_t vocabulary_size);

// A piece of an answer, whose log-probabilities are told if they were asked for.
v1::GenerateResponse GenerateMessage(const TextEvent& event, bool log_probabilities);

}  // namespace nibble
