// Ctrl-C as an event, so that what was begun can be ended in order.

#pragma once

#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

namespace nibble {

// Calls `on_interrupt` once, on a thread of its own, at the first SIGINT, SIGTERM or SIGHUP. A
// second signal ends the process as it would have without this class. While it lives these signals
// are blocked, in this thread and in those that it starts afterwards: create it before the others.
class InterruptGuard {
 public:
  explicit InterruptGuard(std::function<void()> on_interrupt);
  ~InterruptGuard();

  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  bool interrupted() const { return interrupted_; }

 private:
  void Watch(const std::function<void()>& on_interrupt);

  sigset_t watched_;
  sigset_t before_;
  std::atomic<bool> interrupted_ = false;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

}  // namespace nibble
