// The one accept loop of the daemon, for all protocols: the only place where connections can be
// counted and limited together (gRPC 1.51 has no limit of its own).

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "server/listen_address.h"

namespace nibble {

// Accepts connections and hands each to its protocol, which owns and closes it from then on. Over
// the limit a connection is accepted and closed at once, so that the client hears of it instead of
// waiting in the backlog.
//
// The listener keeps no duplicate of a descriptor (it would stay behind in gRPC's epoll set when
// gRPC closes its own), so it learns of closing by comparing the inode of the socket behind the
// number, each second and when full.
//
// Thread-safe after Start().
class Listener {
 public:
  // Takes over a connected socket: non-blocking, close-on-exec, without Nagle's delay.
  using HandOver = std::function<void(Descriptor connection)>;

  struct ProtocolCounts {
    std::string protocol;
    int64_t open = 0;       // When last looked at, a second ago at most.
    uint64_t accepted = 0;  // Handed over since start.
    uint64_t refused = 0;   // Closed because the limit was reached.
  };

  // Requires: connections_max > 0.
  explicit Listener(int connections_max, absl::Duration sweep_interval = absl::Seconds(1));

  // Stops.
  ~Listener();

  // Adds a listening socket whose connections go to `hand_over`. Before Start() only.
  void Add(absl::string_view protocol, Descriptor listening, HandOver hand_over);

  // Starts the thread that accepts.
  //
  // Errors: INTERNAL if the system gives no descriptor for it.
  absl::Status Start();

  // Closes the listening sockets and ends the thread; after it no hand-over is called. Connections
  // that were handed over live on.
  void Stop();

  std::vector<ProtocolCounts> Counts() const;

 private:
  struct Protocol {
    std::string name;
    Descriptor listening;
    HandOver hand_over;
  };

  // Which protocol a descriptor's number was given to, and which socket it was then.
  struct Connection {
    size_t protocol_index;
    ino_t inode;
  };

  void Run();
  void AcceptAll(size_t protocol_index);
  bool Admit(size_t protocol_index, int fd);
  void Sweep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int connections_max_;
  const absl::Duration sweep_interval_;
  std::vector<Protocol> protocols_;
  Descriptor wake_;  // An eventfd; readable once Stop() was called.
  std::thread thread_;

  mutable Mutex mutex_;
  std::vector<ProtocolCounts> counts_ ABSL_GUARDED_BY(mutex_);               // As protocols_.
  std::unordered_map<int, Connection> connections_ ABSL_GUARDED_BY(mutex_);  // By number.
};

}  // namespace nibble
