// The loads that run and those that wait for their turn.

#pragma once

#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/mutex.h"
#include "server/engine/serving_plan.h"
#include "server/load_cache.h"
#include "server/model_table.h"

namespace nibble {

// Opens the checkpoint and plans the load of it.
struct PlannedCheckpoint {
  Checkpoint checkpoint;
  std::shared_ptr<const LoadPlan> plan;
  absl::StatusOr<std::shared_ptr<const ServingPlan>> serving;  // Or why it does not generate.
};
absl::StatusOr<PlannedCheckpoint> OpenAndPlan(std::shared_ptr<const CheckpointDirectory> directory,
                                              const QuantizationSpec& quantization,
                                              const ServingSpec& serving,
                                              const DeviceTraits& traits, int64_t staging_bytes,
                                              absl::FunctionRef<bool()> cancelled = NeverCancelled);

// How `plan` stands against the ledger. Slow for one that does not fit (Remedies).
PlanAnswer Compare(std::shared_ptr<const LoadPlan> plan, const LedgerSnapshot& ledger);

// Owns max_loads threads, each of which carries out one load at a time: open, plan, reserve, load.
// Loads begin in the order in which they were pushed.
class LoadQueue {
 public:
  LoadQueue(ModelTable& table, Device& device, VramBudget& budget, LoadCache& cache,
            const RegistryOptions& options);
  ~LoadQueue();  // Stops.

  // As many loads wait as may, counting none that an idle thread is about to take.
  //
  // These three require that the table's mutex is held.
  bool full() const;

  // Requires: not full().
  void Push(EntryPointer entry);

  // Takes a load that waits out of the queue. Returns: false if it has begun.
  bool Withdraw(const EntryPointer& entry);

  // Ends the threads. Idempotent.
  //
  // Requires: no load waits or will be pushed; the mutex is not held.
  void Stop();

 private:
  void Run();
  absl::StatusOr<LoadedModel> CarryOut(const EntryPointer& entry,
                                       std::shared_ptr<const CheckpointDirectory> directory);
  absl::StatusOr<std::unique_ptr<Weights>> LoadFromEither(const EntryPointer& entry,
                                                          const PlannedCheckpoint& planned,
                                                          VramBudget::Reservation reservation);
  absl::StatusOr<VramBudget::Reservation> Begin(const EntryPointer& entry,
                                                const std::shared_ptr<const LoadPlan>& plan);
  absl::Status CheckRoom(const ModelEntry& entry, const PlannedCheckpoint& planned);
  void TellWhy(const absl::Status& failure);
  absl::Status StartEngine(const EntryPointer& entry, const PlannedCheckpoint& planned,
                           LoadedModel& model);
  void Finish(const EntryPointer& entry, absl::StatusOr<LoadedModel> model);

  ModelTable& table_;
  Device& device_;
  VramBudget& budget_;
  LoadCache& cache_;
  const RegistryOptions& options_;
  CondVar pushed_;
  std::deque<EntryPointer> waiting_ ABSL_GUARDED_BY(table_.mutex());
  int running_count_ ABSL_GUARDED_BY(table_.mutex()) = 0;
  bool stopping_ ABSL_GUARDED_BY(table_.mutex()) = false;
  std::vector<std::thread> threads_;
};

}  // namespace nibble
