#include "server/exporter.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

absl::Status LimitReached(const std::string& message) {
  ErrorDetails details;
  details.reason = "EXPORT_LIMIT";
  details.remedies = {"ask again when it is done"};
  return WithDetails(absl::ResourceExhaustedError(message), details);
}

// Hears the writer on behalf of the caller and of the model.
class HandleObserver final : public ExportObserver {
 public:
  HandleObserver(const ModelHandle& handle, ExportListener& listener)
      : handle_(handle), listener_(listener) {}

  void OnProgress(int64_t written_bytes, int64_t total_bytes) override {
    listener_.OnProgress(written_bytes, total_bytes);
  }
  bool cancelled() const override { return handle_.cancelled() || listener_.cancelled(); }

 private:
  const ModelHandle& handle_;
  ExportListener& listener_;
};

}  // namespace

Exporter::Exporter(Device& device, ModelRegistry& registry, std::vector<std::string> roots)
    : device_(device), registry_(registry), roots_(std::move(roots)) {}

Exporter::~Exporter() {
  for (Slot& slot : slots_) {
    slot.thread.Stop();
  }
}

absl::Status Exporter::Start(const ExportRequest& request,
                             std::shared_ptr<ExportListener> listener) {
  absl::StatusOr<ModelHandle> acquired = registry_.Acquire(request.model);
  if (!acquired.ok()) {
    return acquired.status();
  }
  absl::StatusOr<std::unique_ptr<NewDirectory>> target =
      ResolveExportDirectory(roots_, request.directory);
  if (!target.ok()) {
    return target.status();
  }
  const absl::StatusOr<Slot*> taken = TakeSlot(request.model);
  if (!taken.ok()) {
    return taken.status();
  }
  Slot& slot = **taken;
  // Shared, because a task can be copied; it is run once.
  auto job = std::make_shared<Job>(Job{*std::move(acquired), *std::move(target), listener});
  const auto posted = slot.thread.Post([this, &slot, job, listener = std::move(listener)] {
    // Handle and target are gone when the caller hears of the end: whoever unloads then does not
    // wait, and of a failed export nothing is left.
    const absl::StatusOr<ExportSummary> summary = CarryOut(std::move(*job));
    {
      MutexLock lock(mutex_);
      slot.model.clear();
    }
    listener->OnDone(summary);
  });
  Check(posted == TaskThread::Posted::kYes, "an idle thread takes a task");
  return absl::OkStatus();
}

absl::StatusOr<Exporter::Slot*> Exporter::TakeSlot(const std::string& model) {
  MutexLock lock(mutex_);
  Slot* idle = nullptr;
  for (Slot& slot : slots_) {
    if (slot.model == model) {
      return LimitReached(absl::StrCat(model, ": is being exported already"));
    }
    idle = slot.model.empty() ? &slot : idle;
  }
  if (idle == nullptr) {
    return LimitReached(absl::StrCat("as many exports run as may: ", kExportsMax));
  }
  idle->model = model;
  return idle;
}

absl::StatusOr<ExportSummary> Exporter::CarryOut(Job job) {
  HandleObserver observer(job.handle, *job.listener);
  absl::StatusOr<ExportSummary> summary =
      ExportCheckpoint(device_, job.handle.weights(), job.handle.origin(), *job.target, observer);
  if (absl::IsCancelled(summary.status()) && job.handle.cancelled() && !job.listener->cancelled()) {
    return absl::UnavailableError("the export was cancelled, the model is being unloaded");
  }
  if (!summary.ok() && !absl::IsCancelled(summary.status())) {
    registry_.CheckDevice();
  }
  return summary;
}

}  // namespace nibble
