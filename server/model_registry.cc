#include "server/model_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_details.h"
#include "loader/printable.h"
#include "server/host_memory.h"
#include "server/load_cache.h"
#include "server/load_queue.h"
#include "server/model_table.h"
#include "server/unloader.h"

namespace nibble {
namespace {

absl::Status ShuttingDown() { return absl::UnavailableError("the daemon is shutting down"); }

absl::Status NotFound(absl::string_view model) {
  ErrorDetails details;
  details.reason = "NO_SUCH_MODEL";
  details.resource = ValidateModelName(model).ok() ? std::string(model) : Printable(model);
  return WithDetails(absl::NotFoundError(absl::StrCat("no model ", details.resource)), details);
}

absl::Status NameTaken(const ModelEntry& entry) {
  const bool draining = entry.state == ModelState::kDraining;
  ErrorDetails details;
  details.reason = draining ? "MODEL_DRAINING" : "NAME_TAKEN";
  details.resource = entry.request.model;
  details.remedies = {draining ? "ask again when it is unloaded"
                               : "unload it first, or choose another name"};
  return WithDetails(
      absl::AlreadyExistsError(absl::StrCat(
          entry.request.model, ": ",
          draining ? "is being unloaded"
                   : "is taken by a model of another source, quantization or serving: ",
          draining ? "" : Printable(entry.request.source))),
      details);
}

absl::Status QueueFull(absl::string_view reason, absl::string_view what, int64_t count) {
  ErrorDetails details;
  details.reason = std::string(reason);
  details.remedies = {"ask again later"};
  return WithDetails(
      absl::ResourceExhaustedError(absl::StrCat("as many ", what, " wait as may: ", count)),
      details);
}

// A plan takes milliseconds; this many bounds the memory of a flood.
constexpr int kPlansWaitingMax = 64;

}  // namespace

class ModelHandle::Lease {
 public:
  // Requires: the table's mutex is held; `entry` is kReady.
  Lease(ModelTable& table, EntryPointer entry) : table_(table), entry_(std::move(entry)) {}
  ~Lease() {
    MutexLock lock(table_.mutex());
    table_.ReturnLease(*entry_);
  }

  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  // No lock: weights and origin stay in place while a handle lives.
  const Weights& weights() const { return *entry_->loaded.weights; }
  absl::StatusOr<Engine*> engine() const {
    const LoadedModel& loaded = entry_->loaded;
    return loaded.engine == nullptr ? absl::StatusOr<Engine*>(loaded.engine_status)
                                    : loaded.engine.get();
  }
  const CheckpointOrigin& origin() const { return *entry_->origin; }
  const std::shared_ptr<const ModelText>& text() const { return entry_->loaded.text; }
  bool cancelled() const { return entry_->requests_cancelled; }

 private:
  ModelTable& table_;
  const EntryPointer entry_;
};

ModelHandle::ModelHandle(std::unique_ptr<Lease> lease) : lease_(std::move(lease)) {}
ModelHandle::ModelHandle(ModelHandle&&) noexcept = default;
ModelHandle& ModelHandle::operator=(ModelHandle&&) noexcept = default;
ModelHandle::~ModelHandle() = default;

const Weights& ModelHandle::weights() const { return lease_->weights(); }
const CheckpointOrigin& ModelHandle::origin() const { return lease_->origin(); }
absl::StatusOr<Engine*> ModelHandle::engine() const { return lease_->engine(); }
const std::shared_ptr<const ModelText>& ModelHandle::text() const { return lease_->text(); }
bool ModelHandle::cancelled() const { return lease_->cancelled(); }

// In the order of construction; destruction in reverse order is the shutdown's.
class ModelRegistry::State {
 public:
  enum class Phase { kRunning, kStopping, kStopped };

  State(Device& device, VramBudget& budget, RegistryOptions options, RegistryObserver& observer)
      : options(std::move(options)),
        device(device),
        budget(budget),
        table(budget, observer),
        cache(table, device, this->options),
        loads(table, device, budget, cache, this->options),
        unloader(table, device),
        plans(kPlansWaitingMax) {}

  // Starts what ends with the entry's removal, whatever its state.
  void Unload(const EntryPointer& entry, absl::Status why, absl::Duration drain_timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(table.mutex());

  absl::StatusOr<PlanAnswer> Plan(const std::string& source, const QuantizationSpec& quantization,
                                  const ServingSpec& serving);

  const RegistryOptions options;
  Device& device;
  VramBudget& budget;
  ModelTable table;
  Phase phase ABSL_GUARDED_BY(table.mutex()) = Phase::kRunning;
  LoadCache cache;
  LoadQueue loads;
  Unloader unloader;
  TaskThread plans;
};

void ModelRegistry::State::Unload(const EntryPointer& entry, absl::Status why,
                                  absl::Duration drain_timeout) {
  if (entry->state == ModelState::kFailed) {
    table.Remove(entry);
    return;
  }
  if (entry->state != ModelState::kDraining) {
    table.BeginDraining(*entry, std::move(why));
    // A load that runs ends its entry itself, when it sees this.
    entry->cancelled = true;
  }
  if (loads.Withdraw(entry)) {
    table.Remove(entry);
  } else if (entry->loaded.weights != nullptr) {
    unloader.Drain(entry, drain_timeout);
  }
}

absl::StatusOr<PlanAnswer> ModelRegistry::State::Plan(const std::string& source,
                                                      const QuantizationSpec& quantization,
                                                      const ServingSpec& serving) {
  {
    MutexLock lock(table.mutex());
    if (phase != Phase::kRunning) {
      return ShuttingDown();
    }
  }
  auto directory = options.resolve_source(options.model_roots, source);
  if (!directory.ok()) {
    return directory.status();
  }
  absl::StatusOr<PlannedCheckpoint> planned = OpenAndPlan(
      *std::move(directory), quantization, serving, device.traits(), options.staging_bytes);
  if (!planned.ok()) {
    return planned.status();
  }
  return Compare(planned->plan, budget.Snapshot());
}

ModelRegistry::ModelRegistry(Device& device, VramBudget& budget, RegistryOptions options,
                             RegistryObserver& observer)
    : state_(std::make_unique<State>(device, budget, std::move(options), observer)) {}

ModelRegistry::~ModelRegistry() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<ModelRegistry::Ticket> ModelRegistry::Load(const LoadRequest& request,
                                                          std::shared_ptr<LoadListener> listener) {
  if (absl::Status status = Validate(request); !status.ok()) {
    return status;
  }
  State& state = *state_;
  auto directory = state.options.resolve_source(state.options.model_roots, request.source);
  if (absl::IsInvalidArgument(directory.status())) {
    return directory.status();
  }
  const std::string canonical_source = directory.ok() ? (*directory)->canonical_name() : "";

  MutexLock lock(state.table.mutex());
  if (state.phase != State::Phase::kRunning) {
    return ShuttingDown();
  }
  EntryPointer entry = state.table.Find(request.model);
  if (entry != nullptr && entry->state != ModelState::kFailed) {
    if (entry->state == ModelState::kDraining ||
        !IsSameSpec(*entry, request, directory.ok() ? &canonical_source : nullptr)) {
      return NameTaken(*entry);
    }
    return state.table.Join(entry, request, std::move(listener));
  }
  if (!directory.ok()) {
    return directory.status();
  }
  if (state.loads.full()) {
    absl::Status full = QueueFull("LOAD_QUEUE_FULL", "loads", state.options.max_queued_loads);
    state.table.TellRefused(DetailsOf(full).reason);
    return full;
  }
  entry = state.table.Add(request, *std::move(directory));
  const Ticket ticket = state.table.Join(entry, request, std::move(listener));
  state.loads.Push(std::move(entry));
  return ticket;
}

void ModelRegistry::Leave(Ticket ticket) {
  ModelTable::Seat seat;  // Outlives the lock: the listener may end with it.
  MutexLock lock(state_->table.mutex());
  seat = state_->table.Leave(ticket);
  if (seat.entry != nullptr && IsOrphan(*seat.entry)) {
    state_->Unload(
        seat.entry,
        absl::CancelledError(absl::StrCat(seat.entry->request.model,
                                          ": the load was cancelled, its last caller is gone")),
        absl::ZeroDuration());
  }
}

void ModelRegistry::Unload(absl::string_view model, absl::Duration drain_timeout,
                           std::function<void(absl::StatusOr<int64_t>)> done) {
  {
    MutexLock lock(state_->table.mutex());
    if (const EntryPointer entry = state_->table.Find(model); entry != nullptr) {
      entry->unload_answers.push_back(std::move(done));
      state_->Unload(entry,
                     absl::CancelledError(absl::StrCat(
                         model, ": the load was cancelled, the model is being unloaded")),
                     drain_timeout);
      return;
    }
  }
  state_->table.Answer([done = std::move(done), status = NotFound(model)] { done(status); });
}

void ModelRegistry::Plan(std::string source, QuantizationSpec quantization, ServingSpec serving,
                         std::function<void(absl::StatusOr<PlanAnswer>)> done) {
  absl::Status refused = Validate(quantization);
  refused.Update(Validate(serving));
  if (refused.ok()) {
    switch (state_->plans.Post([state = state_.get(), source = std::move(source),
                                quantization = std::move(quantization), serving, done] {
      done(WithinHostMemory(Printable(source),
                            [&] { return state->Plan(source, quantization, serving); }));
    })) {
      case TaskThread::Posted::kYes:
        return;
      case TaskThread::Posted::kFull:
        refused = QueueFull("PLAN_QUEUE_FULL", "plans", kPlansWaitingMax);
        state_->table.TellRefused(DetailsOf(refused).reason);
        break;
      case TaskThread::Posted::kStopped:
        refused = ShuttingDown();
    }
  }
  state_->table.Answer([done = std::move(done), refused] { done(refused); });
}

absl::StatusOr<ModelInfo> ModelRegistry::Get(absl::string_view model) const {
  MutexLock lock(state_->table.mutex());
  const EntryPointer entry = state_->table.Find(model);
  if (entry == nullptr) {
    return NotFound(model);
  }
  return Describe(*entry);
}

LoadProgress ModelRegistry::Progress(absl::string_view model) const {
  MutexLock lock(state_->table.mutex());
  const EntryPointer entry = state_->table.Find(model);
  return entry != nullptr && entry->state == ModelState::kLoading ? entry->meter.Read()
                                                                  : LoadProgress();
}

absl::StatusOr<ModelHandle> ModelRegistry::Acquire(absl::string_view model) {
  ModelTable& table = state_->table;
  MutexLock lock(table.mutex());
  EntryPointer entry = table.Find(model);
  if (entry == nullptr) {
    return NotFound(model);
  }
  if (entry->state == ModelState::kDraining) {
    return absl::UnavailableError(absl::StrCat(model, ": is being unloaded"));
  }
  if (entry->state != ModelState::kReady) {
    absl::Status status = absl::FailedPreconditionError(
        absl::StrCat(model, ": expected a READY model, it is ", ModelStateName(entry->state)));
    ErrorDetails details;
    details.reason = std::string(kModelLoading);
    const bool is_coming =
        entry->state == ModelState::kQueued || entry->state == ModelState::kLoading;
    return is_coming ? WithDetails(status, details) : status;
  }
  table.TakeLease(*entry);
  return ModelHandle(std::make_unique<ModelHandle::Lease>(table, std::move(entry)));
}

std::shared_ptr<const StateSnapshot> ModelRegistry::Snapshot() const {
  MutexLock lock(state_->table.mutex());
  return state_->table.Snapshot();
}

std::vector<std::pair<std::string, EngineStats>> ModelRegistry::ReadEngines() const {
  std::vector<std::pair<std::string, EngineStats>> engines;
  MutexLock lock(state_->table.mutex());
  for (const EntryPointer& entry : state_->table.Live()) {
    if (entry->loaded.engine != nullptr) {
      engines.emplace_back(entry->request.model, entry->loaded.engine->stats());
    }
  }
  return engines;
}

void ModelRegistry::CheckDevice() const { state_->table.TellIfBroken(state_->device); }

void ModelRegistry::Shutdown(absl::Duration drain_timeout) {
  State& state = *state_;
  bool is_first = false;
  {
    MutexLock lock(state.table.mutex());
    is_first = state.phase == State::Phase::kRunning;
    if (is_first) {
      state.phase = State::Phase::kStopping;
    }
    for (const EntryPointer& entry : state.table.Live()) {
      state.Unload(entry, ShuttingDown(), drain_timeout);
    }
    while (is_first ? !state.table.Live().empty() : state.phase != State::Phase::kStopped) {
      state.table.changed().Wait(state.table.mutex());
    }
  }
  if (!is_first) {
    return;
  }
  state.loads.Stop();
  state.cache.Stop();
  state.unloader.Stop();
  state.plans.Stop();
  state.table.Stop();
  MutexLock lock(state.table.mutex());
  state.phase = State::Phase::kStopped;
  state.table.changed().SignalAll();
}

}  // namespace nibble
