// OpenAI's HTTP API over the models of the registry: /v1/models, /v1/completions and
// /v1/chat/completions.

#pragma once

#include <functional>
#include <memory>

#include "absl/time/time.h"
#include "server/http_exchange.h"
#include "server/logging.h"
#include "server/model_registry.h"
#include "server/task_thread.h"

namespace nibble {

// Thread-safe. What is given must outlive this; exchanges must not.
class OpenAiApi final : public HttpApi {
 public:
  OpenAiApi(ModelRegistry& registry, Logger& logger);

  // Requests are parsed and tokenized on a thread of the API's own.
  std::shared_ptr<HttpExchange> Start(HttpRequest request, std::function<void()> wake) override;

 private:
  HttpAnswer AnswerModels(absl::string_view path) const;
  std::shared_ptr<HttpExchange> Generate(HttpRequest request, bool is_chat,
                                         std::function<void()> wake);

  ModelRegistry& registry_;
  Logger& logger_;
  const absl::Time started_;
  TaskThread preparer_;
};

}  // namespace nibble
