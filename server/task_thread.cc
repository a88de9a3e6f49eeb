#include "server/task_thread.h"

#include <utility>

namespace nibble {

TaskThread::TaskThread(size_t waiting_max)
    : waiting_max_(waiting_max), thread_([this] { Run(); }) {}

TaskThread::~TaskThread() { Stop(); }

TaskThread::Posted TaskThread::Post(std::function<void()> task) {
  MutexLock lock(mutex_);
  if (stopping_) {
    return Posted::kStopped;
  }
  if (tasks_.size() >= waiting_max_) {
    return Posted::kFull;
  }
  tasks_.push_back(std::move(task));
  changed_.SignalAll();
  return Posted::kYes;
}

void TaskThread::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void TaskThread::Run() {
  for (;;) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      while (tasks_.empty() && !stopping_) {
        changed_.Wait(mutex_);
      }
      if (tasks_.empty()) {
        return;
      }
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    // Run, and destroyed with what it holds, without the lock.
    task();
  }
}

}  // namespace nibble
