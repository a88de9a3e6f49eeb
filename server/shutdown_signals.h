// SIGTERM and SIGINT as an event that a thread waits for, so that no code of ours runs in a signal
// handler.

#pragma once

#include <signal.h>

#include <string>

namespace nibble {

// Blocks both signals for the calling thread and for all threads started after; ignores SIGPIPE (a
// client that is gone is an error of its write). Restores the thread's mask on destruction.
class ShutdownSignals {
 public:
  ShutdownSignals();
  ~ShutdownSignals();

  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  // Waits for either. Returns its name: "SIGTERM".
  std::string Wait();

  // From now on the next signal ends the process at once, with exit code 1: whoever asks twice does
  // not want to wait for a drain.
  void ExitOnNext();

 private:
  sigset_t blocked_;
  sigset_t previous_;
};

}  // namespace nibble
