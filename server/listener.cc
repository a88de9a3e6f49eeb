#include "server/listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// Connections taken from one socket before the others have their turn.
constexpr int kAcceptsPerTurn = 64;

// How long to leave the backlog alone when the process is out of descriptors or the system out of
// memory: the socket stays readable, so without a pause the loop would spin.
constexpr absl::Duration kPauseWhenStarved = absl::Milliseconds(100);

// The inode of the socket behind `fd`; 0 if there is none.
ino_t SocketInode(int fd) {
  struct stat status = {};
  return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode) ? status.st_ino : 0;
}

}  // namespace

Listener::Listener(int connections_max, absl::Duration sweep_interval)
    : connections_max_(connections_max), sweep_interval_(sweep_interval) {}

Listener::~Listener() { Stop(); }

void Listener::Add(absl::string_view protocol, Descriptor listening, HandOver hand_over) {
  protocols_.push_back({std::string(protocol), std::move(listening), std::move(hand_over)});
  MutexLock lock(mutex_);
  counts_.push_back({std::string(protocol)});
}

absl::Status Listener::Start() {
  wake_ = Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake_.get() < 0) {
    return absl::InternalError(absl::StrCat("eventfd: ", std::strerror(errno)));
  }
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void Listener::Stop() {
  if (!thread_.joinable()) {
    return;
  }
  eventfd_write(wake_.get(), 1);
  thread_.join();
  for (Protocol& protocol : protocols_) {
    protocol.listening = Descriptor();
  }
}

std::vector<Listener::ProtocolCounts> Listener::Counts() const {
  MutexLock lock(mutex_);
  return counts_;
}

void Listener::Run() {
  std::vector<pollfd> watched;
  for (const Protocol& protocol : protocols_) {
    watched.push_back({protocol.listening.get(), POLLIN, 0});
  }
  watched.push_back({wake_.get(), POLLIN, 0});
  absl::Time next_sweep = absl::Now() + sweep_interval_;
  while (true) {
    const int64_t wait_ms =
        absl::ToInt64Milliseconds(absl::Ceil(next_sweep - absl::Now(), absl::Milliseconds(1)));
    poll(watched.data(), watched.size(), static_cast<int>(wait_ms < 0 ? 0 : wait_ms));
    if (watched.back().revents != 0) {
      return;
    }
    for (size_t index = 0; index < protocols_.size(); ++index) {
      if (watched[index].revents != 0) {
        AcceptAll(index);
      }
    }
    if (absl::Now() >= next_sweep) {
      MutexLock lock(mutex_);
      Sweep();
      next_sweep = absl::Now() + sweep_interval_;
    }
  }
}

void Listener::AcceptAll(size_t protocol_index) {
  const Protocol& protocol = protocols_[protocol_index];
  for (int count = 0; count < kAcceptsPerTurn; ++count) {
    Descriptor connection(
        accept4(protocol.listening.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (connection.get() < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        std::this_thread::sleep_for(absl::ToChronoMilliseconds(kPauseWhenStarved));
      } else if (errno == ECONNABORTED || errno == EINTR) {
        continue;
      }
      return;
    }
    if (!Admit(protocol_index, connection.get())) {
      continue;
    }
    const int on = 1;
    setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    protocol.hand_over(std::move(connection));
  }
}

// Counts a new connection unless the limit is reached.
bool Listener::Admit(size_t protocol_index, int fd) {
  const ino_t inode = SocketInode(fd);
  MutexLock lock(mutex_);
  // A number that the system gives out again was closed by whoever had it.
  if (const auto old = connections_.find(fd); old != connections_.end()) {
    --counts_[old->second.protocol_index].open;
    connections_.erase(old);
  }
  if (static_cast<int>(connections_.size()) >= connections_max_) {
    Sweep();
  }
  ProtocolCounts& counts = counts_[protocol_index];
  if (static_cast<int>(connections_.size()) >= connections_max_) {
    ++counts.refused;
    return false;
  }
  connections_.emplace(fd, Connection{protocol_index, inode});
  ++counts.open;
  ++counts.accepted;
  return true;
}

// Forgets the connections that were closed since. A number may by now belong to a file or to a
// socket of somebody else; its inode tells.
void Listener::Sweep() {
  for (auto entry = connections_.begin(); entry != connections_.end();) {
    if (SocketInode(entry->first) == entry->second.inode) {
      ++entry;
    } else {
      --counts_[entry->second.protocol_index].open;
      entry = connections_.erase(entry);
    }
  }
}

}  // namespace nibble
