#include "server/engine/generation.h"

namespace nibble {

std::optional<GeneratedToken> Generation::Next() {
  std::optional<GeneratedToken> token;
  bool was_full = false;
  {
    MutexLock lock(mutex_);
    if (tokens_.empty()) {
      return std::nullopt;
    }
    was_full = tokens_.size() >= kGenerationQueueMax;
    token = std::move(tokens_.front());
    tokens_.pop_front();
    last_taken_ = absl::Now();
  }
  if (was_full) {
    doorbell_->Ring();
  }
  return token;
}

std::optional<GenerationEnd> Generation::end() const {
  MutexLock lock(mutex_);
  return tokens_.empty() ? end_ : std::nullopt;
}

void Generation::Cancel() {
  if (!cancelled_.exchange(true)) {
    doorbell_->Ring();
  }
}

void Generation::Wait() {
  MutexLock lock(mutex_);
  while (tokens_.empty() && !end_.has_value()) {
    changed_.Wait(mutex_);
  }
}

bool Generation::full() const {
  MutexLock lock(mutex_);
  return tokens_.size() >= kGenerationQueueMax;
}

void Generation::Push(GeneratedToken token) {
  {
    MutexLock lock(mutex_);
    if (tokens_.empty()) {
      last_taken_ = absl::Now();  // Nobody can take what is not there.
    }
    tokens_.push_back(std::move(token));
    changed_.SignalAll();
  }
  if (notify_ != nullptr) {
    notify_();
  }
}

void Generation::End(GenerationEnd end) {
  {
    MutexLock lock(mutex_);
    end_ = std::move(end);
    changed_.SignalAll();
  }
  if (notify_ != nullptr) {
    notify_();
  }
}

absl::Time Generation::last_taken() const {
  MutexLock lock(mutex_);
  return last_taken_;
}

}  // namespace nibble
