// One thread that runs what it is given, one task after the other, in order.

#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <limits>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "kernels/mutex.h"

namespace nibble {

// Runs tasks on a thread of its own, in the order in which they were posted. Thread-safe.
class TaskThread {
 public:
  enum class Posted { kYes, kFull, kStopped };

  // At most `waiting_max` tasks wait beside the one that runs.
  explicit TaskThread(size_t waiting_max = std::numeric_limits<size_t>::max());
  ~TaskThread();  // Stops.

  // Only where it says kYes does the task run.
  Posted Post(std::function<void()> task);

  // Takes no more tasks, runs those that wait, ends the thread. Idempotent.
  //
  // Requires: called by one thread at a time, and not by a task.
  void Stop();

 private:
  void Run();

  const size_t waiting_max_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // Last, so that everything it uses is there before it.
};

}  // namespace nibble
