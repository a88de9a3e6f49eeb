// One caller of LoadModel: hears of the load from the registry, and tells the client at the
// client's pace.

#pragma once

#include <grpcpp/support/server_callback.h>
#include <nibble/v1/model.pb.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "kernels/mutex.h"
#include "server/logging.h"
#include "server/model_registry.h"

namespace nibble {

// The plan, then progress, last the model or an error. Of progress only the newest is kept: a
// reader that lags misses steps, never the plan or the end. When the client is gone, the stream
// leaves the load (and the registry cancels it if nobody else waits for it).
//
// Lives by a reference to itself from Start() until gRPC is done with it; the registry shares it.
class LoadStream final : public grpc::ServerWriteReactor<v1::LoadModelResponse>,
                         public LoadListener {
 public:
  // Begins the load and returns the reactor. `registry` and `logger` must outlive the gRPC server.
  static LoadStream* Start(ModelRegistry& registry, Logger& logger, const LoadRequest& request,
                           std::string device);

  // A stream that ends at once.
  static LoadStream* Refuse(ModelRegistry& registry, Logger& logger, const LoadRequest& request,
                            const absl::Status& status);

  LoadStream(ModelRegistry& registry, Logger& logger, const LoadRequest& request,
             std::string device);

  void OnPlan(const PlanAnswer& plan) override;
  void OnProgress(const LoadProgress& progress) override;
  void OnDone(const absl::StatusOr<ModelInfo>& result) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // What to ask of gRPC next: one thing at a time.
  enum class Step { kNothing, kWrite, kFinish };

  void Advance();
  Step NextStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Abandon(const absl::Status& status);

  ModelRegistry& registry_;
  Logger& logger_;
  const std::string model_;
  const std::string request_id_;
  const std::string device_;
  std::shared_ptr<LoadStream> self_;  // Until OnDone().
  v1::LoadModelResponse message_;     // On its way while writing_.

  Mutex mutex_;
  ModelRegistry::Ticket ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<v1::Plan> plan_ ABSL_GUARDED_BY(mutex_);  // To be sent, as the next two.
  std::optional<LoadProgress> progress_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::Model> loaded_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;  // Nothing is sent but what is to be sent already.
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // Once ended_.
};

}  // namespace nibble
