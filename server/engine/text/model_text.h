// What of a checkpoint's files makes tokens of text, and text of tokens: its tokenizer, its chat
// templates, and how it is to be sampled.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/mutex.h"
#include "loader/checkpoint_directory.h"
#include "server/engine/chat/template_set.h"
#include "server/engine/grammar/token_vocabulary.h"
#include "server/engine/sampling_options.h"
#include "server/engine/text/answer_format.h"
#include "server/engine/tokenizer/tokenizer.h"

namespace nibble {

// generation_config.json and config.json: what counts where a request says nothing.
struct GenerationDefaults {
  SamplingOptions sampling;
  std::vector<int32_t> stop_token_ids;  // eos_token_id.
};

struct RenderedPrompt {
  std::string text;
  AnswerFormat format;
};

// Immutable and thread-safe.
class ModelText {
 public:
  // Reads tokenizer.json, tokenizer_config.json, chat_template.jinja, the templates in
  // additional_chat_templates/ and generation_config.json, as far as they are there. What is
  // missing or broken is told when it is used: a model without a tokenizer serves token ids.
  //
  // Errors: those of a file that is there and cannot be read.
  static absl::StatusOr<std::shared_ptr<const ModelText>> Load(const CheckpointDirectory& directory,
                                                               absl::string_view config_json);

  // Errors: FAILED_PRECONDITION without tokenizer.json, or the error of reading it.
  absl::StatusOr<const Tokenizer*> tokenizer() const;

  // Errors: as above; those of Tokenizer::Encode.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              const EncodeOptions& options) const;

  // The prompt for `variables`, by the template for tools if there is one and tools are given, and
  // the form that its answers have.
  //
  // Errors: FAILED_PRECONDITION without a chat template; INVALID_ARGUMENT for tools that it never
  //   speaks of; its own error; those of ChatTemplate::Render.
  absl::StatusOr<RenderedPrompt> Render(TemplateJson variables) const;

  // What constrained sampling chooses from, for a model of `vocabulary_size` logits. Made when it
  // is first asked for, which takes a moment (57 ms for 150 000 tokens); special tokens have no
  // bytes.
  //
  // Errors: those of tokenizer(); FAILED_PRECONDITION without a token that ends an answer.
  absl::StatusOr<std::shared_ptr<const TokenVocabulary>> Vocabulary(int64_t vocabulary_size) const;

  const GenerationDefaults& defaults() const { return defaults_; }

 private:
  ModelText() = default;

  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer_ = absl::UnknownError("");
  absl::StatusOr<TemplateSet> templates_ = absl::UnknownError("");
  GenerationDefaults defaults_;
  mutable Mutex mutex_;
  mutable std::shared_ptr<const TokenVocabulary> vocabulary_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
