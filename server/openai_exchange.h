// One request to OpenAI's API that is answered by an engine.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/mutex.h"
#include "server/engine/text/text_generation.h"
#include "server/http_exchange.h"
#include "server/logging.h"
#include "server/model_registry.h"
#include "server/openai_answers.h"

namespace nibble {

// Prepared by one thread, then asked for its parts by another: tokens are taken from the engine
// when the client has what came before, so a client that does not read pauses its own sequences.
class OpenAiExchange final : public HttpExchange {
 public:
  OpenAiExchange(ModelRegistry& registry, Logger& logger, bool is_chat, std::string body,
                 std::function<void()> wake);

  // Parses, takes the model, tokenizes, and begins to generate. Once, on the preparing thread.
  void Prepare();

  // Ends it before it was prepared.
  void Fail(absl::Status status);

  std::optional<HttpPart> Next() override;

 private:
  // What runs. Destroyed in reverse order: generations before the model that they are of.
  struct Run {
    ModelHandle handle;
    bool stream;
    OpenAiAnswers answers;
    std::vector<std::unique_ptr<TextGeneration>> generations;  // Of each prompt.
  };

  absl::StatusOr<Run> Begin();
  void Set(absl::StatusOr<Run> run);
  bool TakeEvents(Run& run, std::string& text);
  HttpPart Refuse(const absl::Status& status);

  ModelRegistry& registry_;
  Logger& logger_;
  const bool is_chat_;
  const std::function<void()> wake_;
  std::string body_;   // Until it is prepared.
  std::string model_;  // For the log, once it is known.
  bool begun_ = false;
  absl::Status failed_;  // A generation that did not end well.

  Mutex mutex_;
  std::optional<absl::StatusOr<Run>> run_ ABSL_GUARDED_BY(mutex_);  // Once prepared; set once.
};

}  // namespace nibble
