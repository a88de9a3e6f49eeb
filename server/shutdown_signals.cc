#include "server/shutdown_signals.h"

#include <unistd.h>

#include <thread>

namespace nibble {

ShutdownSignals::ShutdownSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigemptyset(&blocked_);
  sigaddset(&blocked_, SIGTERM);
  sigaddset(&blocked_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &blocked_, &previous_);
}

ShutdownSignals::~ShutdownSignals() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

std::string ShutdownSignals::Wait() {
  int number = 0;
  while (sigwait(&blocked_, &number) != 0) {
  }
  return number == SIGINT ? "SIGINT" : "SIGTERM";
}

void ShutdownSignals::ExitOnNext() {
  // Detached: it ends with the process, one way or the other.
  std::thread([blocked = blocked_] {
    int number = 0;
    while (sigwait(&blocked, &number) != 0) {
    }
    _exit(1);
  }).detach();
}

}  // namespace nibble
