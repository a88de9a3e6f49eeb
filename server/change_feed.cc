#include "server/change_feed.h"

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

// Bounds how long the thread waits for the ledger before it looks at its own state again: a watcher
// that comes in the meantime, or the end. Nothing is looked at while there is no watcher.
constexpr absl::Duration kLookInterval = absl::Milliseconds(100);

}  // namespace

ChangeFeed::ChangeFeed(const VramBudget& budget) : budget_(budget), thread_([this] { Run(); }) {}

ChangeFeed::~ChangeFeed() { End(); }

void ChangeFeed::Add(std::shared_ptr<Watcher> watcher, uint64_t seen, absl::Duration interval) {
  {
    MutexLock lock(mutex_);
    if (!ended_) {
      entries_.push_back({std::move(watcher), seen, interval, absl::Now() + interval});
      changed_.SignalAll();
      return;
    }
  }
  watcher->OnEnd();
}

void ChangeFeed::Remove(const Watcher* watcher) {
  std::shared_ptr<Watcher> last;  // Destroyed without the lock held.
  MutexLock lock(mutex_);
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (entry->watcher.get() == watcher) {
      last = std::move(entry->watcher);
      entries_.erase(entry);
      return;
    }
  }
}

void ChangeFeed::End() {
  std::vector<Entry> entries;
  {
    MutexLock lock(mutex_);
    ended_ = true;
    entries.swap(entries_);
    changed_.SignalAll();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
  for (const Entry& entry : entries) {
    entry.watcher->OnEnd();
  }
}

void ChangeFeed::Run() {
  while (true) {
    const uint64_t sequence = budget_.sequence();
    for (const std::shared_ptr<Watcher>& watcher : TakeDue(sequence, absl::Now())) {
      watcher->OnChange();
    }
    absl::Duration pause;
    {
      MutexLock lock(mutex_);
      while (entries_.empty() && !ended_) {
        changed_.Wait(mutex_);
      }
      if (ended_) {
        return;
      }
      pause = std::min(Pause(sequence, absl::Now()), kLookInterval);
    }
    budget_.WaitForChange(sequence, pause);
  }
}

// Watchers that lag behind `sequence` and are due; they count as told.
std::vector<std::shared_ptr<Watcher>> ChangeFeed::TakeDue(uint64_t sequence, absl::Time now) {
  std::vector<std::shared_ptr<Watcher>> due;
  MutexLock lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.seen != sequence && entry.due <= now) {
      entry.seen = sequence;
      entry.due = now + entry.interval;
      due.push_back(entry.watcher);
    }
  }
  return due;
}

// How long until the first watcher that lags behind is due.
absl::Duration ChangeFeed::Pause(uint64_t sequence, absl::Time now) const {
  absl::Duration pause = absl::InfiniteDuration();
  for (const Entry& entry : entries_) {
    if (entry.seen != sequence) {
      pause = std::min(pause, entry.due - now);
    }
  }
  return std::max(pause, absl::ZeroDuration());
}

}  // namespace nibble
