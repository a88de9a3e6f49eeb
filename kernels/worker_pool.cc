#include "kernels/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <system_error>

#include "kernels/check.h"

namespace nibble {

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
    changed_.SignalAll();
  }
  loop->Work();
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
      changed_.Wait(mutex_);
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
