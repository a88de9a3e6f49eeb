#include "server/model_table.h"

#include <set>
#include <utility>

#include "kernels/check.h"

namespace nibble {
namespace {

bool IsLive(const ModelEntry& entry) {
  return entry.state != ModelState::kFailed && entry.state != ModelState::kUnloaded;
}

int64_t ReservedBytes(const VramBudget& budget, absl::string_view owner) {
  for (const LedgerSnapshot::Owner& candidate : budget.Snapshot().owners) {
    if (candidate.name == owner) {
      return candidate.reserved.total();
    }
  }
  return 0;
}

// A failed model stays listed for its figures. Its tensors can be a hundred thousand, and nobody
// bounds how often clients fail. (Not a copy without its tensors: making that takes their memory,
// which may be what the load has failed for.)
std::shared_ptr<const PlanAnswer> TotalsOf(const PlanAnswer& answer) {
  const LoadPlan& plan = *answer.plan;
  auto totals = std::make_shared<LoadPlan>();
  totals->quantization = plan.quantization;
  totals->serving = plan.serving;
  totals->traits = plan.traits;
  totals->source_bytes = plan.source_bytes;
  totals->weights_bytes = plan.weights_bytes;
  totals->kv_cache_bytes = plan.kv_cache_bytes;
  totals->workspace_bytes = plan.workspace_bytes;
  totals->staging_bytes = plan.staging_bytes;
  totals->loaded_elements = plan.loaded_elements;
  totals->quantized_elements = plan.quantized_elements;
  auto shortened = std::make_shared<PlanAnswer>(answer);
  shortened->plan = std::move(totals);
  return shortened;
}

}  // namespace

EntryPointer ModelTable::Find(absl::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : found->second;
}

std::vector<EntryPointer> ModelTable::Live() const {
  std::vector<EntryPointer> live;
  for (const auto& [name, entry] : entries_) {
    if (IsLive(*entry)) {
      live.push_back(entry);
    }
  }
  return live;
}

EntryPointer ModelTable::Add(const LoadRequest& request,
                             std::shared_ptr<const CheckpointDirectory> directory) {
  auto entry = std::make_shared<ModelEntry>(request, std::move(directory));
  entry->last_used = absl::Now();
  EntryPointer& place = entries_[request.model];
  Check(place == nullptr || !IsLive(*place), "a name has one live model");
  place = entry;
  SetState(*entry, ModelState::kQueued);
  return entry;
}

void ModelTable::SetPlan(ModelEntry& entry, PlanAnswer plan) {
  entry.plan = std::make_shared<const PlanAnswer>(std::move(plan));
  budget_.Touch();
  announcer_.Post([plan = entry.plan, callers = entry.callers] {
    for (const auto& caller : callers) {
      caller->HearPlan(*plan);
    }
  });
}

void ModelTable::BeginLoading(ModelEntry& entry) {
  entry.loading_since = std::chrono::steady_clock::now();
  SetState(entry, ModelState::kLoading);
}

void ModelTable::BecomeReady(const EntryPointer& entry, LoadedModel loaded) {
  entry->loaded = std::move(loaded);
  entry->peak_bytes = entry->loaded.weights->allocated_peak_bytes();
  entry->load_duration = absl::FromChrono(std::chrono::steady_clock::now() - entry->loading_since);
  entry->last_used = absl::Now();
  SetState(*entry, ModelState::kReady);
  FinishLoad(entry, absl::OkStatus());
}

void ModelTable::BeginDraining(ModelEntry& entry, absl::Status why) {
  entry.failure = std::move(why);
  entry.draining_bytes = ReservedBytes(budget_, entry.request.model);
  entry.drain_deadline = SteadyTime::max();
  SetState(entry, ModelState::kDraining);
}

void ModelTable::Fail(const EntryPointer& entry, const absl::Status& status) {
  entry->failure = status;
  entry->failure_order = ++failure_count_;
  if (entry->plan != nullptr) {
    entry->plan = TotalsOf(*entry->plan);
  }
  SetState(*entry, ModelState::kFailed);
  FinishLoad(entry, status);
  DropOldestFailures();
  changed_.SignalAll();
}

void ModelTable::Remove(const EntryPointer& entry) {
  const auto found = entries_.find(entry->request.model);
  Check(found != entries_.end() && found->second == entry, "an entry is removed once");
  entries_.erase(found);
  if (entry->state == ModelState::kFailed) {
    budget_.Touch();  // Its load and its states have been told long ago.
  } else {
    SetState(*entry, ModelState::kUnloaded);
  }
  if (!entry->load_finished) {
    FinishLoad(entry, entry->failure);
  }
  announcer_.Post([answers = std::move(entry->unload_answers), bytes = entry->draining_bytes] {
    for (const UnloadAnswer& answer : answers) {
      answer(bytes);
    }
  });
  entry->unload_answers.clear();
  changed_.SignalAll();
}

void ModelTable::FinishLoad(const EntryPointer& entry, absl::Status status) {
  entry->load_finished = true;
  announcer_.Post([this, entry, status = std::move(status), info = Describe(*entry),
                   callers = std::exchange(entry->callers, {})] {
    HearProgress(*entry, callers);
    observer_.OnLoadFinished(info, status);
    const absl::StatusOr<ModelInfo> result =
        status.ok() ? absl::StatusOr<ModelInfo>(info) : absl::StatusOr<ModelInfo>(status);
    std::set<const LoadCaller*> told;  // Any number may have joined.
    for (const auto& caller : callers) {
      caller->HearDone(result);
      told.insert(caller.get());
    }
    MutexLock lock(mutex_);
    std::erase_if(seats_,
                  [&](const auto& seat) { return told.contains(seat.second.caller.get()); });
  });
}

void ModelTable::DropOldestFailures() {
  for (;;) {
    auto oldest = entries_.end();
    int failed_count = 0;
    for (auto place = entries_.begin(); place != entries_.end(); ++place) {
      if (place->second->state != ModelState::kFailed) {
        continue;
      }
      ++failed_count;
      if (oldest == entries_.end() ||
          place->second->failure_order < oldest->second->failure_order) {
        oldest = place;
      }
    }
    if (failed_count <= kFailedModelsMax) {
      return;
    }
    entries_.erase(oldest);
    budget_.Touch();
  }
}

ModelRegistry::Ticket ModelTable::Join(const EntryPointer& entry, const LoadRequest& request,
                                       std::shared_ptr<LoadListener> listener) {
  const ModelRegistry::Ticket ticket = ++last_ticket_;
  auto caller = std::make_shared<LoadCaller>(std::move(listener));
  seats_[ticket] = {entry, caller};
  entry->detached |= request.detach;
  if (request.pinned && !entry->pinned) {
    entry->pinned = true;
    budget_.Touch();
  }
  if (entry->load_finished) {
    announcer_.Post([this, ticket, caller, plan = entry->plan, info = Describe(*entry)] {
      caller->HearPlan(*plan);
      caller->HearDone(info);
      MutexLock lock(mutex_);
      seats_.erase(ticket);
    });
    return ticket;
  }
  entry->callers.push_back(caller);
  if (entry->plan != nullptr) {
    announcer_.Post([entry, caller, plan = entry->plan] {
      caller->HearPlan(*plan);
      caller->HearProgress(entry->meter.Read());
    });
  }
  return ticket;
}

ModelTable::Seat ModelTable::Leave(ModelRegistry::Ticket ticket) {
  const auto found = seats_.find(ticket);
  if (found == seats_.end()) {
    return {};
  }
  Seat seat = std::move(found->second);
  seats_.erase(found);
  seat.caller->Leave();
  std::erase(seat.entry->callers, seat.caller);
  return seat;
}

void ModelTable::TakeLease(ModelEntry& entry) {
  Hold(entry);
  entry.last_used = absl::Now();
  budget_.Touch();
}

void ModelTable::ReturnLease(ModelEntry& entry) {
  entry.last_used = absl::Now();
  budget_.Touch();
  LetGo(entry);
}

void ModelTable::Hold(ModelEntry& entry) { ++entry.lease_count; }

void ModelTable::LetGo(ModelEntry& entry) {
  Check(entry.lease_count > 0, "a handle is returned once");
  --entry.lease_count;
  if (entry.lease_count == 0 && entry.state == ModelState::kDraining) {
    changed_.SignalAll();
  }
}

void ModelTable::SetState(ModelEntry& entry, ModelState state) {
  entry.state = state;
  budget_.Touch();
  announcer_.Post([this, info = Describe(entry)] { observer_.OnStateChanged(info); });
}

std::shared_ptr<const StateSnapshot> ModelTable::Snapshot() {
  if (snapshot_ != nullptr && snapshot_->ledger.sequence == budget_.sequence()) {
    return snapshot_;
  }
  auto snapshot = std::make_shared<StateSnapshot>();
  // The ledger may move on while the models are listed; they cannot.
  snapshot->ledger = budget_.Snapshot();
  snapshot->models.reserve(entries_.size());
  for (const auto& [name, entry] : entries_) {
    snapshot->models.push_back(Describe(*entry));
  }
  snapshot_ = std::move(snapshot);
  return snapshot_;
}

void ModelTable::TellProgress(const EntryPointer& entry) {
  announcer_.Post([this, entry] {
    Callers callers;
    {
      MutexLock lock(mutex_);
      callers = entry->callers;
    }
    HearProgress(*entry, callers);
  });
}

void ModelTable::HearProgress(ModelEntry& entry, const Callers& callers) {
  const LoadProgress progress = entry.meter.Read();
  const int64_t read_bytes = entry.meter.total_read_bytes();
  const int64_t new_bytes = read_bytes - entry.announced_bytes;
  if (new_bytes > 0) {
    entry.announced_bytes = read_bytes;
    observer_.OnRead(new_bytes);
  }
  for (const auto& caller : callers) {
    caller->HearProgress(progress);
  }
}

void ModelTable::TellRefused(std::string reason) {
  announcer_.Post([this, reason = std::move(reason)] { observer_.OnRefused(reason); });
}

void ModelTable::TellIfBroken(const Device& device) {
  absl::Status health = device.health();
  if (health.ok() || told_broken_.exchange(true)) {
    return;
  }
  announcer_.Post([this, health = std::move(health)] { observer_.OnDeviceBroken(health); });
}

void ModelTable::TellCache(CacheEvent event) {
  announcer_.Post([this, event = std::move(event)] { observer_.OnCache(event); });
}

std::unique_ptr<EngineObserver> ModelTable::NewEngineObserver(std::string model,
                                                              const Device& device) {
  class Observer final : public EngineObserver {
   public:
    Observer(ModelTable& table, std::string model, const Device& device)
        : table_(table), model_(std::move(model)), device_(device) {}

    void OnInterTokenLatency(absl::Duration latency) override {
      table_.observer_.OnInterTokenLatency(model_, latency);
    }
    void OnRequestDone(const RequestTimes& times, const absl::Status& status) override {
      table_.observer_.OnRequestDone(model_, times, status);
    }
    void OnBroken(const absl::Status&) override { table_.TellIfBroken(device_); }

   private:
    ModelTable& table_;
    const std::string model_;
    const Device& device_;
  };
  return std::make_unique<Observer>(*this, std::move(model), device);
}

void ModelTable::Answer(std::function<void()> answer) {
  if (announcer_.Post(answer) == TaskThread::Posted::kStopped) {
    answer();
  }
}

}  // namespace nibble
