#include "kernels/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <system_error>

#include "kernels/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nibble {
namespace {

// How often a thread looks before it sleeps: about 0.1 ms. The operations of a step follow each
// other within that, and waking a thread takes as long as a product of a small matrix.
constexpr int kLooksMax = 3000;

// Looks whether `condition` holds, for a while. Returns: whether it does.
template <typename Condition>
bool LookFor(const Condition& condition) {
  for (int look = 0; look < kLooksMax; ++look) {
    if (condition()) {
      return true;
    }
#if defined(__x86_64__)
    _mm_pause();
#endif
  }
  return false;
}

}  // namespace

// Shared by whoever works on it: a thread that comes late finds no range left, but may still look.
struct WorkerPool::Loop {
  int64_t count = 0;
  int64_t grain = 0;
  const std::function<void(int64_t, int64_t)>* body = nullptr;  // Valid while ranges are left.
  std::atomic<int64_t> next = 0;
  std::atomic<int64_t> done = 0;

  // Works until no range is left. Returns: whether it finished the loop's last one.
  bool Work() {
    bool finished = false;
    for (;;) {
      const int64_t first = next.fetch_add(grain);
      if (first >= count) {
        return finished;
      }
      const int64_t last = std::min(first + grain, count);
      (*body)(first, last);
      finished = done.fetch_add(last - first) + (last - first) == count;
    }
  }
};

WorkerPool::WorkerPool(int thread_count) : thread_count_(thread_count) {
  Check(thread_count >= 1, "the caller is one of the threads");
}

WorkerPool::~WorkerPool() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    Check(loops_.empty(), "a pool outlives its loops");
    stopping_ = true;
    ++posted_;
    threads.swap(threads_);
    changed_.SignalAll();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void WorkerPool::ParallelFor(int64_t count, int64_t grain,
                             const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) {
    return;
  }
  if (thread_count_ == 1 || count <= grain) {
    for (int64_t first = 0; first < count; first += grain) {
      body(first, std::min(first + grain, count));
    }
    return;
  }
  const auto loop = std::make_shared<Loop>();
  loop->count = count;
  loop->grain = grain;
  loop->body = &body;
  {
    MutexLock lock(mutex_);
    Start();
    loops_.push_back(loop);
    ++posted_;
    changed_.SignalAll();
  }
  loop->Work();
  LookFor([&loop, count] { return loop->done.load() == count; });
  MutexLock lock(mutex_);
  std::erase(loops_, loop);
  while (loop->done.load() < count) {
    changed_.Wait(mutex_);
  }
}

// As many threads as the system gives: the caller can do all of it.
void WorkerPool::Start() {
  if (started_) {
    return;
  }
  started_ = true;
  for (int index = 1; index < thread_count_; ++index) {
    try {
      threads_.emplace_back([this]() { Run(); });
    } catch (const std::system_error&) {
      return;
    }
  }
}

void WorkerPool::Run() {
  mutex_.Lock();
  while (!stopping_) {
    if (loops_.empty()) {
      const int64_t seen = posted_;
      mutex_.Unlock();
      const bool posted = LookFor([this, seen] { return posted_ != seen; });
      mutex_.Lock();
      if (!posted && posted_ == seen) {
        changed_.Wait(mutex_);
      }
      continue;
    }
    const std::shared_ptr<Loop> loop = loops_.front();
    mutex_.Unlock();
    const bool finished = loop->Work();
    mutex_.Lock();
    std::erase(loops_, loop);  // It has no ranges left.
    if (finished) {
      changed_.SignalAll();
    }
  }
  mutex_.Unlock();
}

}  // namespace nibble
