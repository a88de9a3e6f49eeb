#include "server/unloader.h"

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

// Beyond what anybody waits for, and far from the ends of the clock.
constexpr absl::Duration kForever = absl::Hours(24 * 365);

SteadyTime After(absl::Duration timeout) {
  return std::chrono::steady_clock::now() +
         absl::ToChronoNanoseconds(std::clamp(timeout, absl::ZeroDuration(), kForever));
}

}  // namespace

Unloader::Unloader(ModelTable& table, const Device& device)
    : table_(table), device_(device), thread_([this] { Run(); }) {}

Unloader::~Unloader() { Stop(); }

void Unloader::Drain(const EntryPointer& entry, absl::Duration timeout) {
  table_.mutex().AssertHeld();
  entry->drain_deadline = std::min(entry->drain_deadline, After(timeout));
  if (std::find(draining_.begin(), draining_.end(), entry) == draining_.end()) {
    draining_.push_back(entry);
    if (entry->loaded.engine != nullptr) {
      entry->loaded.engine->Drain();
    }
  }
  table_.changed().SignalAll();
}

void Unloader::Stop() {
  {
    MutexLock lock(table_.mutex());
    stopping_ = true;
    table_.changed().SignalAll();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Unloader::Run() {
  for (;;) {
    EntryPointer idle;
    LoadedModel loaded;
    std::unique_ptr<const CheckpointOrigin> origin;
    {
      MutexLock lock(table_.mutex());
      while ((idle = TakeIdle()) == nullptr) {
        if (stopping_ && draining_.empty()) {
          return;
        }
        Wait();
      }
      // In the same step as it leaves the list: whoever asks from now on sees a model without
      // weights, which is not drained a second time.
      loaded = std::exchange(idle->loaded, {});
      origin = std::move(idle->origin);
    }
    origin.reset();  // Its open directory goes before the answer too.
    loaded.engine.reset();
    loaded.weights.reset();  // Without the lock: giving gigabytes back takes a while.
    table_.TellIfBroken(device_);
    MutexLock lock(table_.mutex());
    table_.Remove(idle);
  }
}

// Until something changes or the next deadline has passed; cancels the handles of those that are
// past theirs.
void Unloader::Wait() {
  const SteadyTime now = std::chrono::steady_clock::now();
  SteadyTime next = now + absl::ToChronoNanoseconds(kForever);
  for (const EntryPointer& entry : draining_) {
    if (entry->drain_deadline <= now) {
      entry->requests_cancelled = true;
      if (entry->loaded.engine != nullptr) {
        entry->loaded.engine->Abort();
      }
    } else {
      next = std::min(next, entry->drain_deadline);
    }
  }
  table_.changed().WaitFor(table_.mutex(), absl::FromChrono(next - now));
}

EntryPointer Unloader::TakeIdle() {
  const auto found =
      std::find_if(draining_.begin(), draining_.end(),
                   [](const EntryPointer& entry) { return entry->lease_count == 0; });
  if (found == draining_.end()) {
    return nullptr;
  }
  EntryPointer entry = std::move(*found);
  draining_.erase(found);
  return entry;
}

}  // namespace nibble
