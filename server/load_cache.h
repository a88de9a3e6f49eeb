// The quantized cache as loads use it: looked up before one, written to after it.

#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "loader/quantized_cache.h"
#include "server/model_table.h"
#include "server/task_thread.h"

namespace nibble {

// Entries are written one at a time on a thread of its own, from models that are READY. A write
// holds the weights only while it copies from them, and gives them back within a buffer's time when
// the model is to be unloaded; an unload never waits for the disk. Thread-safe.
class LoadCache {
 public:
  // Opens the cache that `options` name, if they do; what is wrong with it is told, and there is
  // none then.
  LoadCache(ModelTable& table, Device& device, const RegistryOptions& options);
  ~LoadCache();  // Stops.

  // What the cache has for a load.
  struct Lookup {
    std::optional<CacheKey> key;    // Nothing if the load is none for the cache.
    std::optional<HeldEntry> held;  // To be loaded.
    absl::Status failure;           // Of an entry that is there but cannot be used.
  };
  Lookup Find(const Checkpoint& checkpoint, const LoadPlan& plan) const;

  // Tells what came of a lookup when its model is loaded. `fallback` is why the entry was given up,
  // or OK. An entry that could not be used is none any more.
  void TellOutcome(const ModelEntry& entry, const Lookup& lookup, const absl::Status& fallback);

  // Has the entry of a model written, by and by, if it has a cache_key.
  //
  // Requires: the table's mutex is not held.
  void Write(const EntryPointer& entry);

  // Gives up what is being written and ends the thread. Idempotent.
  //
  // Requires: the table's mutex is not held.
  void Stop();

 private:
  class Held;

  void RemoveLeftovers();
  void CarryOut(const EntryPointer& entry, const CacheKey& key);
  absl::StatusOr<CacheLock> AwaitLock(const ModelEntry& entry);
  absl::StatusOr<int64_t> WriteEntry(const CacheLock& lock, const EntryPointer& entry,
                                     const CacheKey& key, int64_t& evicted_count);
  void TellWritten(const ModelEntry& entry, const absl::StatusOr<int64_t>& bytes,
                   int64_t evicted_count);

  ModelTable& table_;
  Device& device_;
  std::unique_ptr<const QuantizedCache> cache_;  // Null: there is none.
  bool writable_ = false;
  std::atomic<bool> stopping_ = false;
  TaskThread writer_;  // Last, so that everything it uses is there before it.
};

}  // namespace nibble
