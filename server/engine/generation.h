// One sequence that an engine works on, and the queue through which its tokens reach a client.

#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "server/engine/sampling_options.h"

namespace nibble {

// Which tokens may come next. Belongs to one sequence; called by the engine's thread alone.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // Sets the bits of the tokens that may come next, 32 in a word; the others are 0. At least one is
  // set.
  virtual void FillMask(std::span<uint32_t> mask) = 0;

  // Goes on with a token that was allowed.
  virtual void Accept(int32_t id) = 0;
};

struct GenerationRequest {
  std::vector<int32_t> prompt;  // At least one token.
  int64_t tokens_max = 0;       // Generated; 0 together with score_prompt: none.
  SamplingOptions sampling;
  std::vector<int32_t> stop_token_ids;  // End the answer; they are delivered, as its last token.
  bool score_prompt = false;            // Delivers the prompt's tokens after the first, too.
  std::unique_ptr<TokenConstraint> constraint;
  absl::Time deadline = absl::InfiniteFuture();
};

struct GeneratedToken {
  int32_t id = 0;
  bool of_prompt = false;
  float log_probability = 0;                   // Of the model, before sampling options.
  std::vector<std::pair<int32_t, float>> top;  // Most likely tokens, if they are wanted.
};

enum class FinishReason {
  kStop,    // A stop token.
  kLength,  // tokens_max, or the end of the context.
};

struct GenerationEnd {
  absl::Status status;  // CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE (unloaded), INTERNAL, or OK.
  FinishReason reason = FinishReason::kLength;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
};

// Tokens that wait for the client before the sequence pauses.
inline constexpr size_t kGenerationQueueMax = 256;

// How a client wakes an engine that may be gone. Thread-safe.
class Doorbell {
 public:
  explicit Doorbell(std::function<void()> wake) : wake_(std::move(wake)) {}

  void Ring() {
    MutexLock lock(mutex_);
    if (wake_ != nullptr) {
      wake_();
    }
  }

  // Nobody is there any more.
  void Silence() {
    MutexLock lock(mutex_);
    wake_ = nullptr;
  }

 private:
  Mutex mutex_;
  std::function<void()> wake_ ABSL_GUARDED_BY(mutex_);
};

// Between the engine's thread, which puts tokens in, and one client, which takes them out. When the
// queue is full the sequence pauses, and is cancelled if nothing is taken for a minute. Dropping
// the last reference does not cancel: call Cancel(). Thread-safe.
class Generation {
 public:
  // `notify` is called without locks, by the engine's thread, whenever Next() or end() may have
  // something new; it must return at once.
  explicit Generation(std::function<void()> notify) : notify_(std::move(notify)) {}

  // The next token, if there is one.
  std::optional<GeneratedToken> Next();

  // How it ended, once it has and all tokens are taken.
  std::optional<GenerationEnd> end() const;

  // Ends the sequence at the next step, with CANCELLED. Idempotent.
  void Cancel();

  // Waits until Next() or end() has something; for callers that have a thread to wait with.
  void Wait();

 private:
  friend class Engine;

  // Those of the engine.
  bool full() const;
  bool cancelled() const { return cancelled_; }
  void Push(GeneratedToken token);
  void End(GenerationEnd end);
  absl::Time last_taken() const;

  const std::function<void()> notify_;
  std::shared_ptr<Doorbell> doorbell_;  // Set before the client has it.
  std::atomic<bool> cancelled_ = false;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<GeneratedToken> tokens_ ABSL_GUARDED_BY(mutex_);
  std::optional<GenerationEnd> end_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_taken_ ABSL_GUARDED_BY(mutex_) = absl::Now();
};

}  // namespace nibble
