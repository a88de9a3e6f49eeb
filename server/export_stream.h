// One caller of ExportModel: hears of the export from its thread, and tells the client at the
// client's pace.

#pragma once

#include <grpcpp/support/server_callback.h>
#include <nibble/v1/model.pb.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "kernels/mutex.h"
#include "server/exporter.h"
#include "server/logging.h"

namespace nibble {

// Progress, of which only the newest is kept, and last the summary or an error. When the client is
// gone the export is cancelled.
//
// Lives by a reference to itself from Start() until gRPC is done with it; the exporter shares it.
class ExportStream final : public grpc::ServerWriteReactor<v1::ExportModelResponse>,
                           public ExportListener {
 public:
  // Begins the export and returns the reactor. `exporter` and `logger` must outlive the gRPC
  // server.
  static ExportStream* Start(Exporter& exporter, Logger& logger, const ExportRequest& request);

  ExportStream(Logger& logger, const ExportRequest& request) : logger_(logger), request_(request) {}

  void OnProgress(int64_t written_bytes, int64_t total_bytes) override;
  void OnDone(const absl::StatusOr<ExportSummary>& result) override;
  bool cancelled() const override { return cancelled_; }

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // What to ask of gRPC next: one thing at a time.
  enum class Step { kNothing, kWrite, kFinish };

  void Advance();
  Step NextStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Abandon();

  Logger& logger_;
  const ExportRequest request_;
  std::shared_ptr<ExportStream> self_;  // Until OnDone().
  v1::ExportModelResponse message_;     // On its way while writing_.
  std::atomic<bool> cancelled_ = false;

  Mutex mutex_;
  v1::ExportModelResponse newest_ ABSL_GUARDED_BY(mutex_);  // To be sent, if behind_.
  bool behind_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);  // How it ended, once it has.
};

}  // namespace nibble
