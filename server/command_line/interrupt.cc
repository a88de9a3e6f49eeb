#include "server/command_line/interrupt.h"

#include <unistd.h>

namespace nibble {

InterruptGuard::InterruptGuard(std::function<void()> on_interrupt) {
  sigemptyset(&watched_);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    sigaddset(&watched_, signal);
  }
  pthread_sigmask(SIG_BLOCK, &watched_, &before_);
  thread_ = std::thread([this, on_interrupt = std::move(on_interrupt)] { Watch(on_interrupt); });
}

InterruptGuard::~InterruptGuard() {
  ended_ = true;
  // Wakes the thread; to the thread alone, so that nobody else takes it for a request to end.
  pthread_kill(thread_.native_handle(), SIGHUP);
  thread_.join();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void InterruptGuard::Watch(const std::function<void()>& on_interrupt) {
  int signal = 0;
  while (sigwait(&watched_, &signal) == 0 && !ended_) {
    if (interrupted_.exchange(true)) {
      _exit(128 + signal);
    }
    on_interrupt();
  }
}

}  // namespace nibble
