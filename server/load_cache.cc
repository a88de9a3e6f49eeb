#include "server/load_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_details.h"
#include "loader/cache_writer.h"
#include "server/host_memory.h"

namespace nibble {
namespace {

// How soon a writer that waits for another process looks again.
constexpr absl::Duration kLockInterval = absl::Seconds(1);

absl::Status NotLoaded() { return absl::CancelledError("the model is not loaded any more"); }

}  // namespace

// Keeps a model's weights where they are, without being a use of the model.
class LoadCache::Held {
 public:
  // Nothing if the model is not READY any more.
  static std::optional<Held> TryHold(ModelTable& table, const EntryPointer& entry) {
    MutexLock lock(table.mutex());
    if (entry->state != ModelState::kReady) {
      return std::nullopt;
    }
    table.Hold(*entry);
    return Held(table, entry);
  }

  Held(Held&&) noexcept = default;
  Held& operator=(Held&&) = delete;
  ~Held() {
    if (entry_ != nullptr) {
      MutexLock lock(table_.mutex());
      table_.LetGo(*entry_);
    }
  }

  // No lock: weights stay in place while this lives.
  const Weights& weights() const { return *entry_->loaded.weights; }

 private:
  Held(ModelTable& table, EntryPointer entry) : table_(table), entry_(std::move(entry)) {}

  ModelTable& table_;
  EntryPointer entry_;
};

LoadCache::LoadCache(ModelTable& table, Device& device, const RegistryOptions& options)
    : table_(table), device_(device) {
  if (options.cache_directory.empty()) {
    return;
  }
  CacheEvent event;
  absl::StatusOr<std::unique_ptr<QuantizedCache>> cache =
      QuantizedCache::Open(options.cache_directory, options.cache_limit);
  if (!cache.ok()) {
    event.kind = CacheEvent::Kind::kOff;
    event.why = cache.status();
    table_.TellCache(std::move(event));
    return;
  }
  cache_ = *std::move(cache);
  if (absl::Status status = cache_->CheckWritable(); !status.ok()) {
    event.kind = CacheEvent::Kind::kReadOnly;
    event.why = std::move(status);
    table_.TellCache(event);
  } else {
    writable_ = true;
  }
  writer_.Post([this] { RemoveLeftovers(); });
}

LoadCache::~LoadCache() { Stop(); }

void LoadCache::Stop() {
  stopping_ = true;
  {
    MutexLock lock(table_.mutex());
    table_.changed().SignalAll();
  }
  writer_.Stop();
}

// On the writer's thread: removing the gigabytes of a killed writer takes a while.
void LoadCache::RemoveLeftovers() {
  if (writable_) {
    // Who else holds the lock has removed them.
    if (const absl::StatusOr<CacheLock> lock = cache_->Lock(); lock.ok()) {
      cache_->RemoveLeftovers(*lock);
    }
  }
  CacheEvent event;
  event.kind = CacheEvent::Kind::kOpened;
  event.usage = cache_->Measure();
  table_.TellCache(std::move(event));
}

LoadCache::Lookup LoadCache::Find(const Checkpoint& checkpoint, const LoadPlan& plan) const {
  Lookup lookup;
  if (cache_ == nullptr || !IsCacheable(plan)) {
    return lookup;
  }
  lookup.key = MakeCacheKey(checkpoint, plan);
  // The source has its plan already, so a manifest that the host has no memory for is no error.
  absl::StatusOr<HeldEntry> held =
      WithinHostMemory(kManifestFileName, [&] { return cache_->Find(*lookup.key, plan); });
  if (held.ok()) {
    lookup.held = *std::move(held);
  } else if (!absl::IsNotFound(held.status())) {
    lookup.failure = AsCacheFailure(held.status());
  }
  return lookup;
}

void LoadCache::TellOutcome(const ModelEntry& entry, const Lookup& lookup,
                            const absl::Status& fallback) {
  if (!lookup.key.has_value()) {
    return;
  }
  CacheEvent event;
  event.model = entry.request.model;
  if (!fallback.ok()) {
    event.kind = CacheEvent::Kind::kFallback;
    event.why = fallback;
    if (absl::Status kept = cache_->Discard(*lookup.key); !kept.ok()) {
      event.why = WithDetails(
          absl::Status(fallback.code(), absl::StrCat(fallback.message(),
                                                     "; it cannot be removed: ", kept.message())),
          DetailsOf(fallback));
    }
  } else {
    event.kind = lookup.held.has_value() ? CacheEvent::Kind::kHit : CacheEvent::Kind::kMiss;
  }
  table_.TellCache(std::move(event));
}

void LoadCache::Write(const EntryPointer& entry) {
  std::optional<CacheKey> key;
  {
    MutexLock lock(table_.mutex());
    key = std::exchange(entry->cache_key, std::nullopt);
  }
  if (key.has_value() && writable_) {
    writer_.Post([this, entry, key = *std::move(key)] { CarryOut(entry, key); });
  }
}

absl::StatusOr<CacheLock> LoadCache::AwaitLock(const ModelEntry& entry) {
  while (!entry.cancelled && !stopping_) {
    absl::StatusOr<CacheLock> lock = cache_->Lock();
    if (!absl::IsUnavailable(lock.status())) {
      return lock;
    }
    MutexLock table_lock(table_.mutex());
    table_.changed().WaitFor(table_.mutex(), kLockInterval);
  }
  return NotLoaded();
}

void LoadCache::CarryOut(const EntryPointer& entry, const CacheKey& key) {
  const absl::StatusOr<CacheLock> lock = AwaitLock(*entry);
  if (!lock.ok()) {
    TellWritten(*entry, lock.status(), 0);
    return;
  }
  if (cache_->Contains(key)) {
    return;  // Another load of the same spec, here or elsewhere, was first.
  }
  cache_->RemoveLeftovers(*lock);
  int64_t evicted_count = 0;
  const absl::StatusOr<int64_t> bytes = WithinHostMemory(
      entry->request.model, [&] { return WriteEntry(*lock, entry, key, evicted_count); });
  TellWritten(*entry, bytes, evicted_count);
}

absl::StatusOr<int64_t> LoadCache::WriteEntry(const CacheLock& lock, const EntryPointer& entry,
                                              const CacheKey& key, int64_t& evicted_count) {
  CacheWrite write;
  write.key = key;
  {
    MutexLock table_lock(table_.mutex());
    if (entry->state != ModelState::kReady) {
      return NotLoaded();  // An unload, which does not wait for us, may have taken the origin.
    }
    write.plan = entry->plan->plan;
    write.config = entry->origin->config;
    write.config_json = entry->origin->config_json;
  }
  CacheWriter writer(*cache_, lock, write);
  absl::Status status = writer.Begin();
  evicted_count = writer.evicted_count();
  if (status.ok()) {
    const std::optional<Held> held = Held::TryHold(table_, entry);
    const auto given_up = [this, &entry] { return entry->cancelled || stopping_; };
    status = held.has_value() ? writer.Copy(device_, held->weights(), given_up) : NotLoaded();
  }
  return status.ok() ? writer.Finish() : status;
}

void LoadCache::TellWritten(const ModelEntry& entry, const absl::StatusOr<int64_t>& bytes,
                            int64_t evicted_count) {
  CacheEvent event;
  event.kind = bytes.ok() ? CacheEvent::Kind::kWritten : CacheEvent::Kind::kNotWritten;
  event.model = entry.request.model;
  event.why = bytes.status();
  event.written_bytes = bytes.ok() ? *bytes : 0;
  event.evicted_count = evicted_count;
  event.usage = cache_->Measure();
  table_.TellCache(std::move(event));
}

}  // namespace nibble
