// Tells watchers that ledger or registry changed, each no more often than it asked for.

#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "loader/vram_budget.h"

namespace nibble {

// Hears of changes. Called on the feed's thread without locks held; must return at once.
class Watcher {
 public:
  virtual ~Watcher() = default;
  virtual void OnChange() = 0;

  // The daemon shuts down; nothing follows.
  virtual void OnEnd() = 0;
};

// One thread for all watchers. Thread-safe. `budget` must outlive it.
class ChangeFeed {
 public:
  explicit ChangeFeed(const VramBudget& budget);

  // Ends.
  ~ChangeFeed();

  // From now on `watcher` hears of changes after `seen`, at least `interval` apart. Once the feed
  // has ended it hears OnEnd at once.
  void Add(std::shared_ptr<Watcher> watcher, uint64_t seen, absl::Duration interval);

  // `watcher` may still be called once, if a call is under way.
  void Remove(const Watcher* watcher);

  // Ends every watch and the thread. Idempotent.
  void End();

 private:
  struct Entry {
    std::shared_ptr<Watcher> watcher;
    uint64_t seen;  // The sequence that it was last told of.
    absl::Duration interval;
    absl::Time due;  // Not told again before.
  };

  void Run();
  std::vector<std::shared_ptr<Watcher>> TakeDue(uint64_t sequence, absl::Time now)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Duration Pause(uint64_t sequence, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const VramBudget& budget_;

  Mutex mutex_;
  CondVar changed_;  // Entries or ended_.
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // Last: it uses all of the above.
};

}  // namespace nibble
