// One caller of Generate: takes tokens from the engine at the client's pace.

#pragma once

#include <grpcpp/support/server_callback.h>
#include <nibble/v1/generation.pb.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "server/engine/text/text_generation.h"
#include "server/logging.h"
#include "server/model_registry.h"
#include "server/task_thread.h"

namespace nibble {

// Pieces of the answers, each sent when the one before is on its way; a client that does not read
// pauses its own sequences. When the client is gone, they are cancelled. Text is made by a thread
// of the service, never by the engine's, which only says that there are tokens.
//
// Lives by a reference to itself from Start() until gRPC is done with it.
class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  // Takes the model at once, prepares the prompt on `preparer`, delivers on `deliverer`, and
  // returns the reactor. `request` lives until Finish(); the others must outlive the gRPC server.
  static GenerateStream* Start(ModelRegistry& registry, Logger& logger, TaskThread& preparer,
                               TaskThread& deliverer, const v1::GenerateRequest& request,
                               absl::Time deadline);

  GenerateStream(Logger& logger, TaskThread& deliverer, const v1::GenerateRequest& request,
                 absl::Time deadline)
      : logger_(logger), deliverer_(deliverer), request_(request), deadline_(deadline) {}

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // What to ask of gRPC next: one thing at a time.
  enum class Step { kNothing, kWrite, kFinish };

  void Prepare();
  absl::StatusOr<std::unique_ptr<TextGeneration>> Begin(const ModelHandle& handle);
  void StopPreparing(std::unique_ptr<TextGeneration> generation);
  void PostAdvance();
  void End(const absl::Status& status);
  void Advance();
  Step NextStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Logger& logger_;
  TaskThread& deliverer_;
  const v1::GenerateRequest& request_;
  const absl::Time deadline_;
  std::shared_ptr<GenerateStream> self_;  // Until OnDone().
  v1::GenerateResponse message_;          // On its way while writing_.

  Mutex mutex_;
  std::optional<ModelHandle> handle_ ABSL_GUARDED_BY(mutex_);           // Outlives the generation.
  std::unique_ptr<TextGeneration> generation_ ABSL_GUARDED_BY(mutex_);  // Once prepared.
  bool preparing_ ABSL_GUARDED_BY(mutex_) = false;  // The request is read: it must not go.
  bool posted_ ABSL_GUARDED_BY(mutex_) = false;     // The deliverer will call Advance().
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // Once ended_.
};

}  // namespace nibble
