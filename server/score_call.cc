#include "server/score_call.h"

#include <cmath>
#include <utility>
#include <vector>

#include "server/generation_messages.h"
#include "server/grpc_status.h"
#include "server/host_memory.h"

namespace nibble {

ScoreCall* ScoreCall::Start(ModelRegistry& registry, Logger& logger, TaskThread& preparer,
                            const v1::ScoreRequest& request, v1::ScoreResponse& response,
                            absl::Time deadline) {
  auto call = std::make_shared<ScoreCall>(registry, logger, request, response, deadline);
  ScoreCall* const reactor = call.get();
  reactor->self_ = call;
  if (preparer.Post([call] { call->Prepare(); }) != TaskThread::Posted::kYes) {
    reactor->End(absl::ResourceExhaustedError("too many prompts wait; try again later"));
  }
  return reactor;
}

// On the preparing thread.
void ScoreCall::Prepare() {
  {
    MutexLock lock(mutex_);
    if (ended_) {
      return;
    }
  }
  absl::StatusOr<std::shared_ptr<Generation>> generation =
      WithinHostMemory(request_.model(), [this] { return Submit(); });
  if (!generation.ok()) {
    End(generation.status());
    return;
  }
  bool is_gone = false;
  {
    MutexLock lock(mutex_);
    is_gone = ended_;
    generation_ = *generation;
  }
  if (is_gone) {
    (*generation)->Cancel();
  }
  Take();
}

absl::StatusOr<std::shared_ptr<Generation>> ScoreCall::Submit() {
  absl::StatusOr<ModelHandle> handle = registry_.Acquire(request_.model());
  if (!handle.ok()) {
    return handle.status();
  }
  handle_ = *std::move(handle);
  PromptInput input;
  input.text = &request_.prompt();
  input.token_ids = &request_.token_ids();
  absl::StatusOr<Prompt> prompt = ReadPrompt(*handle_->text(), input);
  if (!prompt.ok()) {
    return prompt.status();
  }
  const absl::StatusOr<Engine*> engine = handle_->engine();
  if (!engine.ok()) {
    return engine.status();
  }
  GenerationRequest scored;
  scored.prompt = std::move(prompt->token_ids);
  scored.score_prompt = true;
  scored.deadline = deadline_;
  {
    MutexLock lock(mutex_);
    if (!ended_) {
      response_.mutable_token_ids()->Add(scored.prompt.begin(), scored.prompt.end());
    }
  }
  // Not a reference of its own: the generation is ours.
  return (*engine)->Submit(std::move(scored), [weak = weak_from_this()] {
    if (const auto call = weak.lock()) {
      call->Take();
    }
  });
}

void ScoreCall::Take() {
  std::optional<GenerationEnd> end;
  {
    MutexLock lock(mutex_);
    if (generation_ == nullptr || ended_) {
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
    const int count = response_.log_probabilities_size();
    response_.set_perplexity(count == 0 ? 0 : std::exp(-sum_ / count));
  }
  End(end->status);
}

void ScoreCall::OnCancel() { End(absl::CancelledError("cancelled by the client")); }

void ScoreCall::OnDone() {
  self_.reset();  // Last: it may be the last reference.
}

void ScoreCall::End(const absl::Status& status) {
  {
    MutexLock lock(mutex_);
    if (ended_) {
      return;
    }
    ended_ = true;
    if (generation_ != nullptr) {
      generation_->Cancel();
    }
  }
  LogRequest(logger_, "Score", request_.model(), "", status);
  Finish(ToGrpcStatus(status));
}

}  // namespace nibble
