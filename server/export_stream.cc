#include "server/export_stream.h"

#include <utility>

#include "server/answer_messages.h"
#include "server/grpc_status.h"

namespace nibble {

ExportStream* ExportStream::Start(Exporter& exporter, Logger& logger,
                                  const ExportRequest& request) {
  auto stream = std::make_shared<ExportStream>(logger, request);
  ExportStream* const reactor = stream.get();
  reactor->self_ = stream;
  if (absl::Status status = exporter.Start(request, stream); !status.ok()) {
    reactor->OnDone(absl::StatusOr<ExportSummary>(std::move(status)));
  }
  return reactor;
}

void ExportStream::OnProgress(int64_t written_bytes, int64_t total_bytes) {
  {
    MutexLock lock(mutex_);
    newest_.set_written_bytes(static_cast<uint64_t>(written_bytes));
    newest_.set_total_bytes(static_cast<uint64_t>(total_bytes));
    behind_ = true;
  }
  Advance();
}

// The export has ended, and of a failed one nothing is left: only now is a client told that
// cancels.
void ExportStream::OnDone(const absl::StatusOr<ExportSummary>& result) {
  if (result.ok()) {
    logger_.Log(LogLevel::kInfo, "exported",
                {{"model", request_.model},
                 {"directory", request_.directory},
                 {"files", result->files.size()},
                 {"bytes", result->bytes}});
  }
  {
    MutexLock lock(mutex_);
    status_ = result.status();
    behind_ = result.ok() && !cancelled_;
    if (result.ok()) {
      *newest_.mutable_summary() = ExportMessage(*result, request_.directory);
    }
  }
  Advance();
}

void ExportStream::OnWriteDone(bool ok) {
  {
    MutexLock lock(mutex_);
    writing_ = false;
  }
  if (!ok) {
    Abandon();
  }
  Advance();
}

void ExportStream::OnCancel() {
  Abandon();
  Advance();
}

void ExportStream::OnDone() {
  self_.reset();  // Last: it may be the last reference.
}

// Nobody reads any more. The call ends when the export has.
void ExportStream::Abandon() {
  cancelled_ = true;
  MutexLock lock(mutex_);
  behind_ = false;
}

// Does the next thing, if nothing is under way. Called after every change; whoever finds something
// to do does it outside the lock, and writing_ and finished_ keep all others from it.
void ExportStream::Advance() {
  Step step = Step::kNothing;
  absl::Status status;
  {
    MutexLock lock(mutex_);
    step = NextStep();
    status = status_.value_or(absl::OkStatus());
  }
  if (step == Step::kWrite) {
    StartWrite(&message_);
  } else if (step == Step::kFinish) {
    LogRequest(logger_, "ExportModel", request_.model, "", status);
    Finish(ToGrpcStatus(status));
  }
}

ExportStream::Step ExportStream::NextStep() {
  if (writing_ || finished_) {
    return Step::kNothing;
  }
  if (behind_ && !cancelled_) {
    message_ = newest_;
    behind_ = false;
    writing_ = true;
    return Step::kWrite;
  }
  finished_ = status_.has_value();
  return finished_ ? Step::kFinish : Step::kNothing;
}

}  // namespace nibble
