// Which models the daemon holds, and the life of each: queued, loading, ready, draining, gone. No
// gRPC here, so that the whole of it runs under ThreadSanitizer.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/device.h"
#include "loader/checkpoint_directory.h"
#include "loader/export_checkpoint.h"
#include "loader/load_plan.h"
#include "loader/load_spec.h"
#include "loader/quantized_cache.h"
#include "loader/quantizing_loader.h"
#include "loader/vram_budget.h"
#include "server/engine/engine.h"
#include "server/engine/text/model_text.h"

namespace nibble {

// Transitions only move down this list, except that every state may go to kFailed. A load is
// kQueued until its share of the budget is reserved, and one that is cancelled is kDraining until
// its bytes are back.
enum class ModelState { kQueued, kLoading, kReady, kDraining, kUnloaded, kFailed };
inline constexpr int kModelStateCount = 6;

absl::string_view ModelStateName(ModelState state);  // "QUEUED".

struct LoadRequest {
  std::string model;
  std::string source;
  QuantizationSpec quantization;
  ServingSpec serving;
  bool pinned = false;
  bool detach = false;     // Goes on when its callers are gone.
  std::string request_id;  // For logs.
};

// A plan, and how it stands against the budget at one moment.
struct PlanAnswer {
  std::shared_ptr<const LoadPlan> plan;
  int64_t limit_bytes = 0;
  int64_t available_bytes = 0;
  std::vector<std::string> remedies;  // Empty if it fits.
  std::string formats;                // Of what will be in 4 bits: "NF4", "FP4/128 DQ, NF4".

  bool fits() const { return plan->peak_bytes() <= available_bytes; }
};

// One model at one moment.
struct ModelInfo {
  std::string name;
  std::string source;
  ModelState state = ModelState::kQueued;
  QuantizationSpec quantization;
  ServingSpec serving;
  std::shared_ptr<const LoadPlan> plan;  // Null until it is planned. Of kFailed: totals alone.
  std::string formats;  // As in PlanAnswer; empty if nothing is in 4 bits, or it is not planned.
  std::shared_ptr<const TensorErrors> errors;  // Of the plan's tensors; null if not measured.
  int64_t peak_bytes = 0;                      // Measured by the ledger, once loaded.
  bool from_cache = false;                     // Loaded from an entry of the quantized cache.
  absl::Status cache_fallback;                 // Why the entry that there was could not be used.
  int64_t read_bytes = 0;                      // Tensor data, of every source that was tried.
  absl::Duration load_duration;                // From the start of LOADING, once loaded.
  absl::Status failure;                        // Of kFailed.
  bool pinned = false;
  absl::Time last_used;    // By a request; at first, when it was asked for.
  std::string request_id;  // Of the request that began the load, for logs.
};

// Ledger and registry at one moment: what GetMemory, ListModels and /metrics all render. Equal
// ledger.sequence means equal contents.
struct StateSnapshot {
  LedgerSnapshot ledger;
  std::vector<ModelInfo> models;  // By name; unloaded models are gone, failed ones stay until their
                                  // name is used again (the newest kFailedModelsMax of them).
};

inline constexpr int kFailedModelsMax = 64;

// What happened at the quantized cache.
struct CacheEvent {
  enum class Kind {
    kOpened,      // `usage` says what was there.
    kOff,         // There is none: `why`.
    kReadOnly,    // Entries are read, none is written: `why`.
    kHit,         // A model was loaded from its entry.
    kMiss,        // It had none, and was loaded from its source.
    kFallback,    // It had one that could not be used, and was loaded from its source: `why`.
    kWritten,     // Its entry was written.
    kNotWritten,  // It was not: `why`; CANCELLED if the model was unloaded meanwhile.
  };

  Kind kind = Kind::kMiss;
  std::string model;  // Empty for the first three.
  absl::Status why;
  int64_t written_bytes = 0;
  int64_t evicted_count = 0;  // Entries that made room.
  CacheUsage usage;           // Of kOpened, kWritten and kNotWritten.
};

// Follows one load for one caller: the plan, then progress that grows (at most every 50 ms, and
// once more at the end; it starts anew where a cache entry had to be given up), then the result.
// Whatever happens in the registry is told on one thread of its own, in the order in which it
// happened, without locks held and never from within a call to the registry; so the calls here must
// return at once, and may call anything of the registry but Shutdown and its destructor. After
// OnDone nothing more is called.
class LoadListener {
 public:
  virtual ~LoadListener() = default;
  virtual void OnPlan(const PlanAnswer& plan) = 0;
  virtual void OnProgress(const LoadProgress& progress) = 0;

  // The READY model, or why there is none.
  virtual void OnDone(const absl::StatusOr<ModelInfo>& result) = 0;
};

// Follows the whole registry, for metrics and logs. Same thread and same rules as LoadListener.
class RegistryObserver {
 public:
  virtual ~RegistryObserver() = default;
  virtual void OnStateChanged(const ModelInfo& model) = 0;
  virtual void OnRead(int64_t bytes) = 0;  // Tensor data, as it is read.

  // Once for each load that was begun, before its listeners hear of it: OK, the error, or CANCELLED
  // (UNAVAILABLE by a shutdown).
  virtual void OnLoadFinished(const ModelInfo& model, const absl::Status& status) = 0;
  virtual void OnRefused(absl::string_view reason) = 0;  // RESOURCE_EXHAUSTED, by ErrorDetails.

  // At most once: after a load that failed, an unload, or CheckDevice().
  virtual void OnDeviceBroken(const absl::Status& health) = 0;
  virtual void OnCache(const CacheEvent& /*event*/) {}

  // Of a model's engine, on its own thread.
  virtual void OnInterTokenLatency(absl::string_view /*model*/, absl::Duration /*latency*/) {}
  virtual void OnRequestDone(absl::string_view /*model*/, const RequestTimes& /*times*/,
                             const absl::Status& /*status*/) {}
};

// Keeps a model's weights on the device while it lives; unloading waits for it. Move-only; belongs
// to one request and is never stored beyond it. A request should end early once cancelled() is
// true: the drain timeout has passed.
class ModelHandle {
 public:
  class Lease;  // In the .cc file.

  explicit ModelHandle(std::unique_ptr<Lease> lease);
  ModelHandle(ModelHandle&&) noexcept;
  ModelHandle& operator=(ModelHandle&&) noexcept;
  ~ModelHandle();

  const Weights& weights() const;
  const CheckpointOrigin& origin() const;  // Of the weights.

  // Errors: why the model does not generate: FAILED_PRECONDITION if it was loaded with
  //   weights_only; UNIMPLEMENTED for its family or an option of it; others of Engine::Create.
  absl::StatusOr<Engine*> engine() const;

  const std::shared_ptr<const ModelText>& text() const;
  bool cancelled() const;

 private:
  std::unique_ptr<Lease> lease_;
};

// Finds a source beneath the model roots: ResolveSource, or what a test puts before it.
using SourceResolver = std::function<absl::StatusOr<std::shared_ptr<const CheckpointDirectory>>(
    const std::vector<std::string>& roots, absl::string_view source)>;

// The reason of an error for a model that is not ready yet: it can be asked again later.
inline constexpr absl::string_view kModelLoading = "MODEL_LOADING";

struct RegistryOptions {
  std::vector<std::string> model_roots;
  SourceResolver resolve_source = ResolveSource;
  int64_t staging_bytes = kStagingBytesDefault;
  int max_loads = 2;          // That run at a time; at least 1. Each is a thread.
  int max_queued_loads = 64;  // More are RESOURCE_EXHAUSTED.
  LoaderOptions loader;
  std::string cache_directory;  // Empty: no quantized cache.
  CacheLimit cache_limit;
  EngineOptions engine;
};

// Owns the models and the threads that load and unload them. Thread-safe.
class ModelRegistry {
 public:
  // Names one caller's interest in a load; 0 is none.
  using Ticket = uint64_t;

  // `device`, `budget` and `observer` must outlive the registry.
  ModelRegistry(Device& device, VramBudget& budget, RegistryOptions options,
                RegistryObserver& observer);

  // Shutdown(), without patience for handles. Waits until they are gone.
  ~ModelRegistry();

  // Starts a load or joins the one of equal spec: same resolved source, quantization and serving.
  // `listener` (null: nobody listens) hears of it from then on; one that joins late hears the plan
  // and how far it is, for a READY model plan and result. Makes a few system calls to resolve the
  // source.
  //
  // Errors: INVALID_ARGUMENT; NOT_FOUND if there is no such source; ALREADY_EXISTS if the name is
  //   taken by another spec or is draining; RESOURCE_EXHAUSTED with reason LOAD_QUEUE_FULL;
  //   UNAVAILABLE while shutting down. What goes wrong later reaches listener->OnDone.
  absl::StatusOr<Ticket> Load(const LoadRequest& request, std::shared_ptr<LoadListener> listener);

  // The caller is gone: its listener hears no more (a call that has begun may end after this
  // returns), and the load is cancelled if no caller is left and none asked to detach. Does nothing
  // for a load that is done.
  void Leave(Ticket ticket);

  // Cancels the model's load, or drains and frees it; `done` is called with the bytes given back
  // (what it had reserved), when they are back. Running requests keep their handles; from
  // `drain_timeout` on these say cancelled(), and are waited for. Whoever asks while the model is
  // being unloaded gets the same answer, and the earlier deadline counts. A load that waits and a
  // model that failed are taken off the list: 0 bytes.
  //
  // Errors (to `done`): NOT_FOUND.
  void Unload(absl::string_view model, absl::Duration drain_timeout,
              std::function<void(absl::StatusOr<int64_t>)> done);

  // Plans on a thread of the registry and calls `done` there.
  //
  // Errors (to `done`): those of planning; RESOURCE_EXHAUSTED with reason PLAN_QUEUE_FULL;
  //   UNAVAILABLE while shutting down.
  void Plan(std::string source, QuantizationSpec quantization, ServingSpec serving,
            std::function<void(absl::StatusOr<PlanAnswer>)> done);

  // Errors: NOT_FOUND.
  absl::StatusOr<ModelInfo> Get(absl::string_view model) const;

  // Of a load that runs; zeros otherwise.
  LoadProgress Progress(absl::string_view model) const;

  // Errors: NOT_FOUND; FAILED_PRECONDITION if it is not READY, with reason kModelLoading if it may
  //   become so; UNAVAILABLE if it is draining.
  absl::StatusOr<ModelHandle> Acquire(absl::string_view model);

  // What the engines do at the moment, by model. Sampled: no part of the snapshot.
  std::vector<std::pair<std::string, EngineStats>> ReadEngines() const;

  // Cheap while nothing changes: one snapshot is kept and shared.
  std::shared_ptr<const StateSnapshot> Snapshot() const;

  // For whoever made a call of the device that failed: if the device is broken for good, the
  // observer is told of it, once.
  void CheckDevice() const;

  // Refuses new loads from now on, cancels the running ones, drains and unloads every model, and
  // returns when all bytes are back, everything is told and every thread has ended. Idempotent;
  // called again meanwhile, it waits too, and the earlier deadline counts.
  void Shutdown(absl::Duration drain_timeout);

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
