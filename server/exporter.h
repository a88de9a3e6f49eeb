// The exports that run: each writes one model to disk on a thread of its own, for one caller.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/mutex.h"
#include "loader/export_checkpoint.h"
#include "server/model_registry.h"
#include "server/task_thread.h"

namespace nibble {

// Exports that run at a time: they share the disk, and each takes 16 MiB of host memory at most.
// One of a model; none wait.
inline constexpr int kExportsMax = 2;

struct ExportRequest {
  std::string model;
  std::string directory;  // Of the daemon's machine, absolute.
};

// Follows one export, on its thread: progress that grows, then the result, then nothing. Calls must
// return at once.
class ExportListener {
 public:
  virtual ~ExportListener() = default;
  virtual void OnProgress(int64_t written_bytes, int64_t total_bytes) = 0;
  virtual void OnDone(const absl::StatusOr<ExportSummary>& result) = 0;

  // Whether the caller is gone. Any thread; once true, stays true.
  virtual bool cancelled() const = 0;
};

// Thread-safe. An export holds a ModelHandle: an unload waits for it, and past the drain timeout
// cancels it. A cancelled export leaves nothing on the disk.
class Exporter {
 public:
  // `roots` are the directories beneath which exports may be written; none: exports are off.
  // `device` and `registry` must outlive it.
  Exporter(Device& device, ModelRegistry& registry, std::vector<std::string> roots);

  // Waits for the exports that run.
  ~Exporter();

  // Begins an export; `listener` hears of it.
  //
  // Errors: those of ModelRegistry::Acquire and ResolveExportDirectory; RESOURCE_EXHAUSTED with
  //   reason EXPORT_LIMIT. What goes wrong later reaches listener->OnDone.
  absl::Status Start(const ExportRequest& request, std::shared_ptr<ExportListener> listener);

 private:
  struct Slot {
    TaskThread thread;
    std::string model;  // Being exported; empty: idle.
  };

  struct Job {
    ModelHandle handle;
    std::unique_ptr<NewDirectory> target;
    std::shared_ptr<ExportListener> listener;
  };

  absl::StatusOr<Slot*> TakeSlot(const std::string& model);
  absl::StatusOr<ExportSummary> CarryOut(Job job);

  Device& device_;
  ModelRegistry& registry_;
  const std::vector<std::string> roots_;
  Mutex mutex_;
  std::array<Slot, kExportsMax> slots_;  // Their models are guarded by mutex_. Last: their threads
                                         // use all of it.
};

}  // namespace nibble
