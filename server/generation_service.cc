#include "server/generation_service.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "server/generate_stream.h"
#include "server/generation_messages.h"
#include "server/grpc_status.h"
#include "server/host_memory.h"

namespace nibble {
namespace {

// Prompts that wait for the preparing thread; more are refused.
constexpr size_t kPreparingMax = 1024;

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  return absl::FromChrono(context.deadline());
}

// Follows one scored text to its end. The engine's thread, which tells of it, must not wait: what
// it says is short.
class ScoreCall {
 public:
  using Done = std::function<void(const absl::Status&)>;

  // `response` lives until `done` was called, which is once.
  static void Start(ModelHandle handle, std::vector<int32_t> token_ids, absl::Time deadline,
                    v1::ScoreResponse& response, Done done) {
    auto call = std::make_shared<ScoreCall>(std::move(handle), response, std::move(done));
    const absl::StatusOr<Engine*> engine = call->handle_.engine();
    if (!engine.ok()) {
      call->done_(engine.status());
      return;
    }
    response.mutable_token_ids()->Add(token_ids.begin(), token_ids.end());
    GenerationRequest request;
    request.prompt = std::move(token_ids);
    request.score_prompt = true;
    request.deadline = deadline;
    absl::StatusOr<std::shared_ptr<Generation>> generation =
        (*engine)->Submit(std::move(request), [call] { call->Take(); });
    if (!generation.ok()) {
      call->done_(generation.status());
      return;
    }
    {
      MutexLock lock(call->mutex_);
      call->generation_ = *std::move(generation);
    }
    call->Take();
  }

  ScoreCall(ModelHandle handle, v1::ScoreResponse& response, Done done)
      : handle_(std::move(handle)), response_(response), done_(std::move(done)) {}

 private:
  void Take() {
    std::optional<GenerationEnd> end;
    std::shared_ptr<Generation> ended;  // Its notifier holds us: not to be freed under the lock.
    {
      MutexLock lock(mutex_);
      if (generation_ == nullptr) {
        return;
      }
      while (const std::optional<GeneratedToken> token = generation_->Next()) {
        response_.add_log_probabilities(token->log_probability);
        sum_ += double{token->log_probability};
      }
      end = generation_->end();
      if (!end.has_value()) {
        return;
      }
      ended = std::move(generation_);
    }
    const int count = response_.log_probabilities_size();
    response_.set_perplexity(count == 0 ? 0 : std::exp(-sum_ / count));
    done_(end->status);
  }

  const ModelHandle handle_;
  v1::ScoreResponse& response_;
  const Done done_;
  Mutex mutex_;
  std::shared_ptr<Generation> generation_ ABSL_GUARDED_BY(mutex_);  // Until it has ended.
  double sum_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

GenerationService::GenerationService(ModelRegistry& registry, Logger& logger)
    : registry_(registry), logger_(logger), preparer_(kPreparingMax) {}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return GenerateStream::Start(registry_, logger_, preparer_, *request, DeadlineOf(*context));
}

grpc::ServerUnaryReactor* GenerationService::Score(grpc::CallbackServerContext* context,
                                                   const v1::ScoreRequest* request,
                                                   v1::ScoreResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const absl::Time deadline = DeadlineOf(*context);
  const auto finish = [this, reactor, request](const absl::Status& status) {
    Finish(reactor, "Score", request->model(), status);
  };
  const auto run = [this, request, response, deadline, finish] {
    absl::StatusOr<ModelHandle> handle = registry_.Acquire(request->model());
    if (!handle.ok()) {
      finish(handle.status());
      return;
    }
    absl::StatusOr<Prompt> prompt = WithinHostMemory(request->model(), [&] {
      PromptInput input;
      input.text = &request->prompt();
      input.token_ids = &request->token_ids();
      return ReadPrompt(*handle->text(), input);
    });
    if (!prompt.ok()) {
      finish(prompt.status());
      return;
    }
    ScoreCall::Start(*std::move(handle), std::move(prompt->token_ids), deadline, *response, finish);
  };
  if (preparer_.Post(run) != TaskThread::Posted::kYes) {
    finish(absl::ResourceExhaustedError("too many prompts wait; try again later"));
  }
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const v1::TokenizeRequest* request,
                                                      v1::TokenizeResponse* response) {
  return Answer(
      context, "Tokenize", request->model(), [request, response](const ModelHandle& handle) {
        PromptInput input;
        input.text = &request->text();
        input.messages = &request->messages();
        input.tools_json = &request->tools_json();
        input.variables = &request->template_variables();
        input.add_special_tokens =
            !request->has_add_special_tokens() || request->add_special_tokens();
        input.add_generation_prompt =
            !request->has_add_generation_prompt() || request->add_generation_prompt();
        input.parse_special = request->parse_special();
        const absl::StatusOr<Prompt> prompt = ReadPrompt(*handle.text(), input);
        const absl::StatusOr<const Tokenizer*> tokenizer = handle.text()->tokenizer();
        if (!prompt.ok() || !tokenizer.ok()) {
          return prompt.ok() ? tokenizer.status() : prompt.status();
        }
        response->set_prompt(prompt->rendered);
        for (const int32_t id : prompt->token_ids) {
          response->add_token_ids(id);
          response->add_tokens((*tokenizer)->TokenText(static_cast<uint32_t>(id)).value_or(""));
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const v1::DetokenizeRequest* request,
                                                        v1::DetokenizeResponse* response) {
  return Answer(context, "Detokenize", request->model(),
                [request, response](const ModelHandle& handle) -> absl::Status {
                  const absl::StatusOr<const Tokenizer*> tokenizer = handle.text()->tokenizer();
                  if (!tokenizer.ok()) {
                    return tokenizer.status();
                  }
                  // A model has logits beyond its tokenizer's tokens: these have no text.
                  const absl::StatusOr<Engine*> engine = handle.engine();
                  const int64_t id_end =
                      engine.ok() ? (*engine)->recipe().vocabulary_size : int64_t{1} << 31;
                  std::vector<uint32_t> ids;
                  for (const int32_t id : request->token_ids()) {
                    if (id < 0 || id >= id_end) {
                      return BadField("token_ids",
                                      absl::StrCat("expected 0 to ", id_end - 1, ", found ", id));
                    }
                    ids.push_back(static_cast<uint32_t>(id));
                  }
                  response->set_text((*tokenizer)->Decode(ids, request->skip_special_tokens()));
                  return absl::OkStatus();
                });
}

grpc::ServerUnaryReactor* GenerationService::Answer(
    grpc::CallbackServerContext* context, const char* call, const std::string& model,
    std::function<absl::Status(const ModelHandle&)> answer) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto run = [this, reactor, call, &model, answer = std::move(answer)] {
    Finish(reactor, call, model, WithinHostMemory(model, [&]() -> absl::Status {
             const absl::StatusOr<ModelHandle> handle = registry_.Acquire(model);
             return handle.ok() ? answer(*handle) : handle.status();
           }));
  };
  if (preparer_.Post(run) != TaskThread::Posted::kYes) {
    Finish(reactor, call, model,
           absl::ResourceExhaustedError("too many prompts wait; try again later"));
  }
  return reactor;
}

void GenerationService::Finish(grpc::ServerUnaryReactor* reactor, const char* call,
                               const std::string& model, const absl::Status& status) const {
  LogRequest(logger_, call, model, "", status);
  reactor->Finish(ToGrpcStatus(status));
}

}  // namespace nibble
