// One model of the registry: what it was asked to be, and what it is at the moment.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loader/cache_key.h"
#include "loader/checkpoint_directory.h"
#include "loader/weights.h"
#include "server/engine/engine.h"
#include "server/engine/text/model_text.h"
#include "server/load_caller.h"
#include "server/model_registry.h"

namespace nibble {

using SteadyTime = std::chrono::steady_clock::time_point;
using UnloadAnswer = std::function<void(absl::StatusOr<int64_t>)>;

// What a load leaves. Ends in reverse order: the engine before what it reads.
struct LoadedModel {
  std::unique_ptr<Weights> weights;
  std::unique_ptr<EngineObserver> observer;
  std::unique_ptr<Engine> engine;
  absl::Status engine_status;  // Why there is no engine.
  std::shared_ptr<const ModelText> text;
};

// A model from the moment it is asked for until it is gone. Whoever works on it shares it; the
// table lists it.
struct ModelEntry {
  ModelEntry(const LoadRequest& request, std::shared_ptr<const CheckpointDirectory> directory);

  // Constant after construction.
  const LoadRequest request;
  const std::string canonical_source;

  // Own synchronization.
  LoadMeter meter;
  std::atomic<bool> cancelled = false;           // The load is to stop, or the model to go.
  std::atomic<bool> requests_cancelled = false;  // So are those that hold handles.

  // Touched by the announcing thread alone.
  int64_t announced_bytes = 0;

  // Guarded by the table's mutex.
  std::shared_ptr<const CheckpointDirectory> directory;  // Until the load takes it.
  ModelState state = ModelState::kQueued;
  bool pinned = false;
  bool detached = false;
  bool load_finished = false;                      // Whichever way.
  std::shared_ptr<const PlanAnswer> plan;          // As it stood when it was planned.
  std::shared_ptr<const TensorErrors> errors;      // With error_stats, once loaded.
  LoadedModel loaded;                              // Of kReady, and of kDraining until it is freed.
  std::unique_ptr<const CheckpointOrigin> origin;  // Of kReady, from then on.
  std::optional<CacheKey> cache_key;               // Under which it is to be cached, once kReady.
  bool from_cache = false;
  absl::Status cache_fallback;  // Why its cache entry could not be used, if there was one.
  int64_t peak_bytes = 0;
  SteadyTime loading_since;
  absl::Duration load_duration;
  absl::Time last_used;
  absl::Status failure;        // Of kFailed; or, once cancelled, what the load's callers are told.
  uint64_t failure_order = 0;  // Numbers the failures.
  int64_t lease_count = 0;     // Handles that live.
  SteadyTime drain_deadline;
  int64_t draining_bytes = 0;  // What it had reserved when the unloading began.
  std::vector<std::shared_ptr<LoadCaller>> callers;  // Of a load that is not done.
  std::vector<UnloadAnswer> unload_answers;
};

using EntryPointer = std::shared_ptr<ModelEntry>;

// Requires: the table's mutex is held.
ModelInfo Describe(const ModelEntry& entry);

// Whether a request asks for what `entry` is. `canonical_source` is null where the request's source
// could not be resolved; then its words decide, so that a model outlives its files.
bool IsSameSpec(const ModelEntry& entry, const LoadRequest& request,
                const std::string* canonical_source);

// A load that nobody waits for any more.
//
// Requires: the table's mutex is held.
bool IsOrphan(const ModelEntry& entry);

// Errors: INVALID_ARGUMENT that names the field; UNIMPLEMENTED for what this version cannot do yet.
// The source is judged by ResolveSource.
absl::Status Validate(const LoadRequest& request);

// Whether `name` can name a model; other names are shown to nobody as they are.
//
// Errors: INVALID_ARGUMENT.
absl::Status ValidateModelName(absl::string_view name);

}  // namespace nibble
