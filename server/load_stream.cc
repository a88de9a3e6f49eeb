#include "server/load_stream.h"

#include <utility>

#include "server/answer_messages.h"
#include "server/grpc_status.h"

namespace nibble {
LoadStream* LoadStream::Start(ModelRegistry& registry, Logger& logger, const LoadRequest& request,
                              std::string device) {
  auto stream = std::make_shared<LoadStream>(registry, logger, request, std::move(device));
  LoadStream* const reactor = stream.get();
  reactor->self_ = stream;
  // gRPC cancels or finishes nothing before this function has returned, so the ticket is there when
  // OnCancel needs it.
  const absl::StatusOr<ModelRegistry::Ticket> ticket = registry.Load(request, stream);
  if (!ticket.ok()) {
    reactor->Abandon(ticket.status());
    return reactor;
  }
  MutexLock lock(reactor->mutex_);
  reactor->ticket_ = *ticket;
  return reactor;
}

LoadStream* LoadStream::Refuse(ModelRegistry& registry, Logger& logger, const LoadRequest& request,
                               const absl::Status& status) {
  auto stream = std::make_shared<LoadStream>(registry, logger, request, "");
  stream->self_ = stream;
  stream->Abandon(status);
  return stream.get();
}

LoadStream::LoadStream(ModelRegistry& registry, Logger& logger, const LoadRequest& request,
                       std::string device)
    : registry_(registry),
      logger_(logger),
      model_(request.model),
      request_id_(request.request_id),
      device_(std::move(device)) {}

void LoadStream::OnPlan(const PlanAnswer& plan) {
  v1::Plan message = PlanMessage(plan, PlanDetail::kTotals);
  {
    MutexLock lock(mutex_);
    if (!ended_) {
      plan_ = std::move(message);
    }
  }
  Advance();
}

void LoadStream::OnProgress(const LoadProgress& progress) {
  {
    MutexLock lock(mutex_);
    if (ended_) {
      return;
    }
    progress_ = progress;
  }
  Advance();
}

void LoadStream::OnDone(const absl::StatusOr<ModelInfo>& result) {
  {
    MutexLock lock(mutex_);
    if (ended_) {
      return;
    }
    ended_ = true;
    status_ = result.status();
    if (result.ok()) {
      loaded_ = ModelMessage(*result, device_);
    }
  }
  Advance();
}

void LoadStream::OnWriteDone(bool ok) {
  {
    MutexLock lock(mutex_);
    writing_ = false;
  }
  if (ok) {
    Advance();
  } else {
    Abandon(absl::CancelledError("the client is gone"));
  }
}

void LoadStream::OnCancel() { Abandon(absl::CancelledError("cancelled by the client")); }

void LoadStream::OnDone() {
  self_.reset();  // Last: it may be the last reference.
}

// Ends the stream without what was still to be sent, and leaves the load.
void LoadStream::Abandon(const absl::Status& status) {
  ModelRegistry::Ticket ticket = 0;
  {
    MutexLock lock(mutex_);
    if (!ended_) {
      ended_ = true;
      status_ = status;
    }
    plan_.reset();
    progress_.reset();
    loaded_.reset();
    ticket = std::exchange(ticket_, 0);
  }
  if (ticket != 0) {
    registry_.Leave(ticket);
  }
  Advance();
}

// Does the next thing, if nothing is under way. Called after every change; whoever finds something
// to do does it outside the lock, and writing_ and finished_ keep all others from it.
void LoadStream::Advance() {
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
    LogRequest(logger_, "LoadModel", model_, request_id_, status);
    Finish(ToGrpcStatus(status));
  }
}

LoadStream::Step LoadStream::NextStep() {
  if (writing_ || finished_) {
    return Step::kNothing;
  }
  if (plan_.has_value()) {
    *message_.mutable_plan() = *std::move(plan_);
    plan_.reset();
  } else if (progress_.has_value()) {
    *message_.mutable_progress() = ProgressMessage(*progress_);
    progress_.reset();
  } else if (loaded_.has_value()) {
    *message_.mutable_model() = *std::move(loaded_);
    loaded_.reset();
  } else {
    finished_ = ended_;
    return ended_ ? Step::kFinish : Step::kNothing;
  }
  writing_ = true;
  return Step::kWrite;
}

}  // namespace nibble
