#include "server/load_queue.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"
#include "kernels/error_details.h"
#include "server/device_room.h"
#include "server/host_memory.h"

namespace nibble {
namespace {

LoadProgress StartOf(const LoadPlan& plan) {
  LoadProgress progress;
  progress.source_bytes = plan.source_bytes;
  progress.tensors_total = std::count_if(plan.tensors.begin(), plan.tensors.end(),
                                         [](const PlannedTensor& tensor) { return tensor.loaded; });
  return progress;
}

// Hears the loader on behalf of one entry.
class EntryObserver final : public LoadObserver {
 public:
  // `source_plan` is what is left when the cache's entry is given up.
  EntryObserver(ModelTable& table, EntryPointer entry, const LoadPlan& source_plan)
      : table_(table), entry_(std::move(entry)), source_plan_(source_plan) {}

  void OnProgress(const LoadProgress& progress) override {
    if (entry_->meter.Update(progress)) {
      table_.TellProgress(entry_);
    }
  }

  void OnErrors(TensorErrors&& errors) override {
    auto shared = std::make_shared<const TensorErrors>(std::move(errors));
    MutexLock lock(table_.mutex());
    entry_->errors = std::move(shared);
  }

  bool cancelled() const override { return entry_->cancelled; }

  void OnFallback(const absl::Status& why) override {
    fallback_ = why;
    entry_->meter.Restart(StartOf(source_plan_));
  }

  const absl::Status& fallback() const { return fallback_; }

 private:
  ModelTable& table_;
  const EntryPointer entry_;
  const LoadPlan& source_plan_;
  absl::Status fallback_;
};

// The formats of a plan's tensors in 4 bits, sorted.
std::string FormatsOf(const LoadPlan& plan) {
  std::set<std::string> formats;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.loaded && tensor.quantized()) {
      formats.insert(absl::StrCat(
          FormatName(tensor.format),
          tensor.block_size == kBlockSizeDefault ? "" : absl::StrCat("/", tensor.block_size),
          tensor.double_quantized ? " DQ" : ""));
    }
  }
  return absl::StrJoin(formats, ", ");
}

// What is at once said of how a plan stands.
void SetFigures(const LedgerSnapshot& ledger, PlanAnswer& answer) {
  answer.limit_bytes = ledger.limit_bytes;
  answer.available_bytes = ledger.available_bytes();
}

// What a plan that does not fit could be helped by: more plans, each of which may take a second.
void AddRemedies(const LedgerSnapshot& ledger, absl::FunctionRef<bool()> cancelled,
                 PlanAnswer& answer) {
  // What runtime holds cannot be unloaded, so no remedy may count on it.
  answer.remedies = Remedies(*answer.plan, answer.limit_bytes - ledger.reserved[Purpose::kRuntime],
                             answer.available_bytes, cancelled);
}

absl::Status Cancelled(const ModelEntry& entry) {
  return absl::CancelledError(absl::StrCat(entry.request.model, ": cancelled"));
}

absl::Status WithRemedies(const absl::Status& refused, const PlanAnswer& answer) {
  ErrorDetails details = DetailsOf(refused);
  details.remedies = answer.remedies;
  return WithDetails(refused, details);
}

}  // namespace

absl::StatusOr<PlannedCheckpoint> OpenAndPlan(std::shared_ptr<const CheckpointDirectory> directory,
                                              const QuantizationSpec& quantization,
                                              const ServingSpec& serving,
                                              const DeviceTraits& traits, int64_t staging_bytes,
                                              absl::FunctionRef<bool()> cancelled) {
  absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(std::move(directory));
  if (!checkpoint.ok()) {
    return checkpoint.status();
  }
  absl::StatusOr<LoadPlan> plan =
      MakeLoadPlan(*checkpoint, quantization, serving, traits, staging_bytes, cancelled);
  if (!plan.ok()) {
    return plan.status();
  }
  PlannedServing planned = PlanServing(*checkpoint, *plan);
  if (!planned.plan_status.ok()) {
    return planned.plan_status;
  }
  return PlannedCheckpoint{*std::move(checkpoint),
                           std::make_shared<const LoadPlan>(*std::move(plan)),
                           std::move(planned.serving)};
}

PlanAnswer Compare(std::shared_ptr<const LoadPlan> plan, const LedgerSnapshot& ledger) {
  PlanAnswer answer;
  answer.formats = FormatsOf(*plan);
  answer.plan = std::move(plan);
  SetFigures(ledger, answer);
  AddRemedies(ledger, NeverCancelled, answer);
  return answer;
}

LoadQueue::LoadQueue(ModelTable& table, Device& device, VramBudget& budget, LoadCache& cache,
                     const RegistryOptions& options)
    : table_(table), device_(device), budget_(budget), cache_(cache), options_(options) {
  for (int i = 0; i < options.max_loads; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

LoadQueue::~LoadQueue() { Stop(); }

bool LoadQueue::full() const {
  table_.mutex().AssertHeld();
  const int64_t idle_count = options_.max_loads - running_count_;
  return std::ssize(waiting_) - idle_count >= options_.max_queued_loads;
}

void LoadQueue::Push(EntryPointer entry) {
  table_.mutex().AssertHeld();
  waiting_.push_back(std::move(entry));
  pushed_.SignalAll();
}

bool LoadQueue::Withdraw(const EntryPointer& entry) {
  table_.mutex().AssertHeld();
  return std::erase(waiting_, entry) > 0;
}

void LoadQueue::Stop() {
  {
    MutexLock lock(table_.mutex());
    Check(waiting_.empty(), "no load waits when the threads end");
    stopping_ = true;
    pushed_.SignalAll();
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
  threads_.clear();
}

void LoadQueue::Run() {
  for (;;) {
    EntryPointer entry;
    std::shared_ptr<const CheckpointDirectory> directory;
    {
      MutexLock lock(table_.mutex());
      while (waiting_.empty() && !stopping_) {
        pushed_.Wait(table_.mutex());
      }
      if (waiting_.empty()) {
        return;
      }
      entry = std::move(waiting_.front());
      waiting_.pop_front();
      directory = std::move(entry->directory);
      ++running_count_;
    }
    absl::StatusOr<LoadedModel> model = WithinHostMemory(
        entry->request.model, [&] { return CarryOut(entry, std::move(directory)); });
    TellWhy(model.status());
    Finish(entry, std::move(model));
    MutexLock lock(table_.mutex());
    --running_count_;
  }
}

void LoadQueue::TellWhy(const absl::Status& failure) {
  if (failure.ok()) {
    return;
  }
  // Without a reason it was no limit of ours but one of the system's.
  const std::string reason = DetailsOf(failure).reason;
  if (absl::IsResourceExhausted(failure) && !reason.empty()) {
    table_.TellRefused(reason);
  }
  table_.TellIfBroken(device_);
}

absl::StatusOr<LoadedModel> LoadQueue::CarryOut(
    const EntryPointer& entry, std::shared_ptr<const CheckpointDirectory> directory) {
  absl::StatusOr<PlannedCheckpoint> planned = OpenAndPlan(
      std::move(directory), entry->request.quantization, entry->request.serving, device_.traits(),
      options_.staging_bytes, [&entry]() -> bool { return entry->cancelled; });
  if (!planned.ok()) {
    return planned.status();
  }
  absl::StatusOr<VramBudget::Reservation> reservation = Begin(entry, planned->plan);
  if (!reservation.ok()) {
    return reservation.status();
  }
  if (absl::Status status = CheckRoom(*entry, *planned); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::unique_ptr<Weights>> weights =
      LoadFromEither(entry, *planned, *std::move(reservation));
  if (!weights.ok()) {
    // The device and the host do not know for whom they had no memory.
    return absl::IsResourceExhausted(weights.status())
               ? WithSubject(weights.status(), entry->request.model)
               : weights.status();
  }
  LoadedModel model;
  model.weights = *std::move(weights);
  if (absl::Status status = StartEngine(entry, *planned, model); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::shared_ptr<const ModelText>> text =
      ModelText::Load(*planned->checkpoint.directory, planned->checkpoint.config_json);
  if (!text.ok()) {
    return text.status();
  }
  model.text = *std::move(text);
  auto origin = std::make_unique<CheckpointOrigin>();
  origin->directory = std::move(planned->checkpoint.directory);
  origin->config = std::move(planned->checkpoint.config);
  origin->config_json = std::move(planned->checkpoint.config_json);
  MutexLock lock(table_.mutex());
  entry->origin = std::move(origin);
  return model;
}

// A model that we cannot compute is loaded all the same, for telemetry and export.
//
// Errors: what failed besides: the device, or memory.
absl::Status LoadQueue::StartEngine(const EntryPointer& entry, const PlannedCheckpoint& planned,
                                    LoadedModel& model) {
  if (!planned.serving.ok()) {
    model.engine_status = planned.serving.status();
    return absl::OkStatus();
  }
  const ServingPlan& serving = **planned.serving;
  model.observer = table_.NewEngineObserver(entry->request.model, device_);
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(device_, *model.weights, serving.recipe, serving.sizes, options_.engine,
                     model.observer.get());
  if (engine.ok()) {
    model.engine = *std::move(engine);
    return absl::OkStatus();
  }
  model.engine_status = WithSubject(engine.status(), entry->request.model);
  const bool is_models = absl::IsUnimplemented(engine.status()) ||
                         absl::IsFailedPrecondition(engine.status()) ||
                         absl::IsDataLoss(engine.status());
  return is_models ? absl::OkStatus() : model.engine_status;
}

// From the cache's entry of this load, if there is one, else from the source.
absl::StatusOr<std::unique_ptr<Weights>> LoadQueue::LoadFromEither(
    const EntryPointer& entry, const PlannedCheckpoint& planned,
    VramBudget::Reservation reservation) {
  const LoadCache::Lookup lookup = cache_.Find(planned.checkpoint, *planned.plan);
  std::vector<LoadSource> sources;
  if (lookup.held.has_value()) {
    const CacheEntry& cached = lookup.held->entry;
    sources.push_back({&cached.checkpoint, cached.plan, cached.checksums.get()});
    entry->meter.Restart(StartOf(*cached.plan));
  }
  sources.push_back({&planned.checkpoint, planned.plan});
  EntryObserver observer(table_, entry, *planned.plan);
  absl::StatusOr<std::unique_ptr<Weights>> weights =
      LoadWeights(device_, sources, std::move(reservation), options_.loader, observer);
  const absl::Status& fallback = lookup.failure.ok() ? observer.fallback() : lookup.failure;
  const bool from_cache = lookup.held.has_value() && fallback.ok();
  {
    MutexLock lock(table_.mutex());
    entry->from_cache = weights.ok() && from_cache;
    entry->cache_fallback = fallback;
    if (!from_cache) {
      entry->cache_key = lookup.key;
    }
  }
  if (weights.ok()) {
    cache_.TellOutcome(*entry, lookup, fallback);
  }
  return weights;
}

// Decides under one lock, so that the plan's callers are told the figures by which it is decided,
// and a model is seen LOADING exactly when its share is reserved. What could help one that is
// refused is worked out when it is, without the lock, from the same figures.
absl::StatusOr<VramBudget::Reservation> LoadQueue::Begin(
    const EntryPointer& entry, const std::shared_ptr<const LoadPlan>& plan) {
  PlanAnswer answer;
  answer.formats = FormatsOf(*plan);
  answer.plan = plan;
  LedgerSnapshot ledger;
  absl::Status refused;
  {
    MutexLock lock(table_.mutex());
    if (entry->cancelled) {
      return Cancelled(*entry);
    }
    ledger = budget_.Snapshot();
    SetFigures(ledger, answer);
    absl::StatusOr<VramBudget::Reservation> reservation =
        budget_.Reserve(entry->request.model, plan->peak());
    if (reservation.ok()) {
      table_.SetPlan(*entry, std::move(answer));
      entry->meter.Update(StartOf(*plan));
      table_.BeginLoading(*entry);
      return reservation;
    }
    refused = reservation.status();
  }
  AddRemedies(
      ledger, [&entry]() -> bool { return entry->cancelled; }, answer);
  refused = WithRemedies(refused, answer);
  MutexLock lock(table_.mutex());
  if (entry->cancelled) {
    return Cancelled(*entry);
  }
  table_.SetPlan(*entry, std::move(answer));
  return refused;
}

// The budget is a promise of ours; others on the card have made none.
absl::Status LoadQueue::CheckRoom(const ModelEntry& entry, const PlannedCheckpoint& planned) {
  const absl::StatusOr<Device::Memory> memory = device_.QueryMemory();
  if (!memory.ok()) {
    return memory.status();
  }
  RoomNeeded needed;
  needed.model = entry.request.model;
  needed.device = device_.name();
  needed.peak_bytes = planned.plan->peak_bytes();
  if (planned.serving.ok()) {
    needed.recorded_bytes = (*planned.serving)->sizes.recorded_bytes;
  }
  return CheckDeviceHasRoom(needed, *memory, budget_.Snapshot());
}

void LoadQueue::Finish(const EntryPointer& entry, absl::StatusOr<LoadedModel> model) {
  bool is_ready = false;
  {
    MutexLock lock(table_.mutex());
    if (!entry->cancelled && !model.ok()) {
      table_.Fail(entry, model.status());
      return;
    }
    is_ready = !entry->cancelled;
    if (is_ready) {
      table_.BecomeReady(entry, *std::move(model));
    }
  }
  if (is_ready) {
    cache_.Write(entry);
    return;
  }
  model = absl::CancelledError("");  // Frees what came too late, before its end is told.
  MutexLock lock(table_.mutex());
  table_.Remove(entry);
}

}  // namespace nibble
