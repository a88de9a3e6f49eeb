#include "server/generate_stream.h"

#include <utility>

#include "server/generation_messages.h"
#include "server/grpc_status.h"
#include "server/host_memory.h"

namespace nibble {

GenerateStream* GenerateStream::Start(ModelRegistry& registry, Logger& logger, TaskThread& preparer,
                                      TaskThread& deliverer, const v1::GenerateRequest& request,
                                      absl::Time deadline) {
  auto stream = std::make_shared<GenerateStream>(logger, deliverer, request, deadline);
  GenerateStream* const reactor = stream.get();
  reactor->self_ = stream;
  absl::StatusOr<ModelHandle> handle = registry.Acquire(request.model());
  if (!handle.ok()) {
    reactor->End(handle.status());
    return reactor;
  }
  {
    MutexLock lock(reactor->mutex_);
    reactor->handle_ = *std::move(handle);
    reactor->preparing_ = true;
  }
  const TaskThread::Posted posted = preparer.Post([stream] { stream->Prepare(); });
  if (posted != TaskThread::Posted::kYes) {
    reactor->StopPreparing(nullptr);
    reactor->End(posted == TaskThread::Posted::kFull
                     ? absl::ResourceExhaustedError("too many prompts wait; try again later")
                     : absl::UnavailableError("the daemon shuts down"));
  }
  return reactor;
}

// On the preparing thread.
void GenerateStream::Prepare() {
  const ModelHandle* handle = nullptr;
  {
    MutexLock lock(mutex_);
    if (!ended_) {
      handle = &*handle_;  // Stays until OnDone(), and somebody holds a reference to us.
    }
  }
  if (handle == nullptr) {
    StopPreparing(nullptr);
    Advance();
    return;
  }
  absl::StatusOr<std::unique_ptr<TextGeneration>> generation =
      WithinHostMemory(request_.model(), [&] { return Begin(*handle); });
  const absl::Status status = generation.status();
  StopPreparing(generation.ok() ? *std::move(generation) : nullptr);
  if (status.ok()) {
    Advance();
  } else {
    End(status);
  }
}

absl::StatusOr<std::unique_ptr<TextGeneration>> GenerateStream::Begin(const ModelHandle& handle) {
  const absl::StatusOr<Engine*> engine = handle.engine();
  if (!engine.ok()) {
    return engine.status();
  }
  absl::StatusOr<TextRequest> parsed =
      ParseGenerate(request_, *handle.text(), (*engine)->recipe().vocabulary_size);
  if (!parsed.ok()) {
    return parsed.status();
  }
  parsed->deadline = deadline_;
  // Not a reference of its own: the generation is ours.
  return TextGeneration::Start(**engine, handle.text(), *std::move(parsed),
                               [weak = weak_from_this()] {
                                 if (const auto stream = weak.lock()) {
                                   stream->PostAdvance();
                                 }
                               });
}

void GenerateStream::StopPreparing(std::unique_ptr<TextGeneration> generation) {
  MutexLock lock(mutex_);
  preparing_ = false;
  generation_ = std::move(generation);
  if (ended_ && generation_ != nullptr) {
    generation_->Cancel();
  }
}

// On the engine's thread, which must not wait for us.
void GenerateStream::PostAdvance() {
  {
    MutexLock lock(mutex_);
    if (posted_) {
      return;
    }
    posted_ = true;
  }
  const auto advance = [stream = shared_from_this()] {
    {
      MutexLock lock(stream->mutex_);
      stream->posted_ = false;
    }
    stream->Advance();
  };
  if (deliverer_.Post(advance) != TaskThread::Posted::kYes) {
    advance();
  }
}

void GenerateStream::OnWriteDone(bool ok) {
  {
    MutexLock lock(mutex_);
    writing_ = false;
  }
  if (ok) {
    Advance();
  } else {
    End(absl::CancelledError("the client is gone"));
  }
}

void GenerateStream::OnCancel() { End(absl::CancelledError("cancelled by the client")); }

void GenerateStream::OnDone() {
  self_.reset();  // Last: it may be the last reference.
}

void GenerateStream::End(const absl::Status& status) {
  {
    MutexLock lock(mutex_);
    if (!ended_) {
      ended_ = true;
      status_ = status;
    }
    if (generation_ != nullptr) {
      generation_->Cancel();
    }
  }
  Advance();
}

// Does the next thing, if nothing is under way. Called after every change; whoever finds something
// to do does it outside the lock, and writing_ and finished_ keep all others from it.
void GenerateStream::Advance() {
  Step step = Step::kNothing;
  absl::Status status;
  {
    MutexLock lock(mutex_);
    step = NextStep();
    status = status_;
  }
  if (step == Step::kWrite) {
    StartWrite(&message_);
  } else if (step == Step::kFinish) {
    LogRequest(logger_, "Generate", request_.model(), "", status);
    Finish(ToGrpcStatus(status));
  }
}

GenerateStream::Step GenerateStream::NextStep() {
  if (preparing_ || writing_ || finished_) {
    return Step::kNothing;
  }
  if (!ended_ && generation_ != nullptr) {
    if (std::optional<TextEvent> event = generation_->Next()) {
      if (event->end.has_value() && !event->end->status.ok()) {
        ended_ = true;
        status_ = event->end->status;
        generation_->Cancel();
      } else {
        message_ = GenerateMessage(*event, request_.has_logprobs());
        writing_ = true;
        return Step::kWrite;
      }
    }
    ended_ = ended_ || generation_->done();
  }
  finished_ = ended_;
  return ended_ ? Step::kFinish : Step::kNothing;
}

}  // namespace nibble
