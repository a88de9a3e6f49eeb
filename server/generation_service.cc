#include "server/generation_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "server/generate_stream.h"
#include "server/generation_messages.h"
#include "server/grpc_status.h"
#include "server/host_memory.h"
#include "server/score_call.h"

namespace nibble {
namespace {

// Prompts that wait for the preparing thread; more are refused.
constexpr size_t kPreparingMax = 1024;

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  return absl::FromChrono(context.deadline());
}

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
  return ScoreCall::Start(registry_, logger_, preparer_, *request, *response, DeadlineOf(*context));
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
