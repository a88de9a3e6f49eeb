// The cores of the host device, shared by everything that computes on it.

#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/mutex.h"

namespace nibble {

// Splits loops over threads that wait for work. The caller of a loop works too, so a loop ends even
// if no thread could be started, and loops of several callers share the threads.
//
// Between two loops a thread looks for the next one for a tenth of a millisecond before it sleeps.
//
// Thread-safe. Threads are started by the first loop that has work for them.
class WorkerPool {
 public:
  // Requires: thread_count >= 1, the caller's included.
  explicit WorkerPool(int thread_count);
  ~WorkerPool();  // No loop may be running.

  // Calls body(first, last) for ranges that together are [0, count), each of at most `grain` and
  // at least one; returns when all are done. The body must not throw, and must not run a loop.
  void ParallelFor(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

  int thread_count() const { return thread_count_; }

 private:
  struct Loop;

  void Start() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run();

  const int thread_count_;
  Mutex mutex_;
  CondVar changed_;
  std::atomic<int64_t> posted_ = 0;  // Loops so far, and the end. Changes under the lock.
  std::deque<std::shared_ptr<Loop>> loops_ ABSL_GUARDED_BY(mutex_);  // With ranges left.
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace nibble
