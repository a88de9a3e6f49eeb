// One caller of Score.

#pragma once

#include <grpcpp/support/server_callback.h>
#include <nibble/v1/generation.pb.h>

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "server/engine/generation.h"
#include "server/logging.h"
#include "server/model_registry.h"
#include "server/task_thread.h"

namespace nibble {

// Follows one scored text to its end, or to that of its client, which cancels it. The engine's
// thread, which tells of it, must not wait: what it says is short.
//
// Lives by a reference to itself from Start() until gRPC is done with it.
class ScoreCall final : public grpc::ServerUnaryReactor,
                        public std::enable_shared_from_this<ScoreCall> {
 public:
  // Prepares the text on `preparer`, and returns the reactor. `request` and `response` live as long
  // as the call; the others must outlive the gRPC server.
  static ScoreCall* Start(ModelRegistry& registry, Logger& logger, TaskThread& preparer,
                          const v1::ScoreRequest& request, v1::ScoreResponse& response,
                          absl::Time deadline);

  ScoreCall(ModelRegistry& registry, Logger& logger, const v1::ScoreRequest& request,
            v1::ScoreResponse& response, absl::Time deadline)
      : registry_(registry),
        logger_(logger),
        request_(request),
        deadline_(deadline),
        response_(response) {}

  void OnCancel() override;
  void OnDone() override;

 private:
  void Prepare();
  absl::StatusOr<std::shared_ptr<Generation>> Submit();
  void Take();
  void End(const absl::Status& status);

  ModelRegistry& registry_;
  Logger& logger_;
  const v1::ScoreRequest& request_;
  const absl::Time deadline_;
  std::shared_ptr<ScoreCall> self_;    // Until OnDone().
  std::optional<ModelHandle> handle_;  // Of the preparing thread; outlives the generation.

  Mutex mutex_;
  v1::ScoreResponse& response_ ABSL_GUARDED_BY(mutex_);             // Until ended_.
  std::shared_ptr<Generation> generation_ ABSL_GUARDED_BY(mutex_);  // Once prepared.
  double sum_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace nibble
