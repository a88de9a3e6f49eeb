// The models of the registry, their states, and what is told of each change.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "kernels/device.h"
#include "kernels/mutex.h"
#include "loader/vram_budget.h"
#include "server/model_entry.h"
#include "server/task_thread.h"

namespace nibble {

// Owns the entries. Every change of one is made by a method here, under the mutex, together with
// VramBudget::Touch; so a snapshot of table and ledger taken under it is consistent, and numbered.
// (Order of locks: table, then budget or announcer.)
//
// What happened is told on one thread, in the order in which it happened, without the lock:
// posting under the lock makes it so.
class ModelTable {
 public:
  ModelTable(VramBudget& budget, RegistryObserver& observer)
      : budget_(budget), observer_(observer) {}

  Mutex& mutex() ABSL_LOCK_RETURNED(mutex_) { return mutex_; }

  // Signalled when a model settles, and when the last handle of a draining one goes.
  CondVar& changed() { return changed_; }

  // Returns: null if there is none. A kFailed entry is found, though its name is free.
  EntryPointer Find(absl::string_view name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Every entry of a state that is neither kFailed nor kUnloaded.
  std::vector<EntryPointer> Live() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The life of an entry, in this order. Add() puts it in kQueued, in place of a failed one.
  EntryPointer Add(const LoadRequest& request, std::shared_ptr<const CheckpointDirectory> directory)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetPlan(ModelEntry& entry, PlanAnswer plan) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginLoading(ModelEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BecomeReady(const EntryPointer& entry, LoadedModel loaded)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // `why` is what the callers of a load that is not done will be told.
  void BeginDraining(ModelEntry& entry, absl::Status why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Ends a load that was not cancelled. The newest kFailedModelsMax such entries stay listed.
  void Fail(const EntryPointer& entry, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Takes an entry off the list and answers whoever waits for that.
  //
  // Requires: its memory is given back.
  void Remove(const EntryPointer& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // A caller that hears of the entry's load from now on, or at once of the finished one.
  ModelRegistry::Ticket Join(const EntryPointer& entry, const LoadRequest& request,
                             std::shared_ptr<LoadListener> listener)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What a ticket stands for.
  struct Seat {
    EntryPointer entry;
    std::shared_ptr<LoadCaller> caller;
  };

  // Takes the caller off its load and returns both; or nothing, if the load is done. To be
  // destroyed without the mutex, since the caller's listener may end with it.
  Seat Leave(ModelRegistry::Ticket ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Handles.
  void TakeLease(ModelEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReturnLease(ModelEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The same for the registry's own work, which is no use of the model.
  void Hold(ModelEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LetGo(ModelEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::shared_ptr<const StateSnapshot> Snapshot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Tells what is no change of an entry. With or without the mutex.
  void TellProgress(const EntryPointer& entry);
  void TellRefused(std::string reason);

  // For whoever made a call of the device that failed, or that cannot say so: tells, once, if the
  // device is broken for good.
  void TellIfBroken(const Device& device);
  void TellCache(CacheEvent event);

  // Tells what an engine does, on the engine's own thread.
  std::unique_ptr<EngineObserver> NewEngineObserver(std::string model, const Device& device);

  // Calls `answer` on the announcing thread, or on this one if that has ended.
  //
  // Requires: the mutex is not held.
  void Answer(std::function<void()> answer);

  // Tells what there is to tell and ends the announcing thread.
  //
  // Requires: the mutex is not held; nothing will change any more.
  void Stop() { announcer_.Stop(); }

 private:
  using Callers = std::vector<std::shared_ptr<LoadCaller>>;

  void SetState(ModelEntry& entry, ModelState state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishLoad(const EntryPointer& entry, absl::Status status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropOldestFailures() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // On the announcing thread.
  void HearProgress(ModelEntry& entry, const Callers& callers);

  VramBudget& budget_;
  RegistryObserver& observer_;
  std::atomic<bool> told_broken_ = false;
  CondVar changed_;

  Mutex mutex_;
  std::map<std::string, EntryPointer, std::less<>> entries_ ABSL_GUARDED_BY(mutex_);
  std::map<ModelRegistry::Ticket, Seat> seats_ ABSL_GUARDED_BY(mutex_);
  ModelRegistry::Ticket last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t failure_count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<const StateSnapshot> snapshot_ ABSL_GUARDED_BY(mutex_);

  TaskThread announcer_;  // Last: what it tells of is there before it.
};

}  // namespace nibble
