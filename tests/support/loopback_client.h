// A plain TCP client on the loopback interface, for tests that send what no proper client would.

#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace nibble {

// One connection; closed on destruction. Reads give up after 20 seconds: only a bug gets there.
class LoopbackClient {
 public:
  explicit LoopbackClient(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  LoopbackClient(LoopbackClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_) {}
  ~LoopbackClient() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }

  bool connected() const { return connected_; }

  bool Send(absl::string_view text) {
    return send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }

  bool SetLinger(const linger& value) {
    return setsockopt(fd_, SOL_SOCKET, SO_LINGER, &value, sizeof(value)) == 0;
  }

  // Some bytes; empty at the end of the stream, on an error, or in vain.
  std::string Read() {
    pollfd ready = {fd_, POLLIN, 0};
    if (poll(&ready, 1, 20'000) != 1) {
      return "";
    }
    char bytes[4096];
    const ssize_t count = recv(fd_, bytes, sizeof(bytes), 0);
    return count > 0 ? std::string(bytes, static_cast<size_t>(count)) : "";
  }

  // Until what was read contains `text`, or the end.
  std::string ReadUntil(absl::string_view text) {
    std::string all;
    while (all.find(text.data(), 0, text.size()) == std::string::npos) {
      const std::string some = Read();
      if (some.empty()) {
        break;
      }
      all += some;
    }
    return all;
  }

  std::string ReadAll() {
    std::string all;
    for (std::string some = Read(); !some.empty(); some = Read()) {
      all += some;
    }
    return all;
  }

 private:
  int fd_;
  bool connected_ = false;
};

// The whole answer to one GET.
inline std::string HttpGet(uint16_t port, absl::string_view path,
                           absl::string_view host = "localhost") {
  LoopbackClient client(port);
  std::string request = "GET ";
  request.append(path.data(), path.size()).append(" HTTP/1.1\r\nHost: ");
  request.append(host.data(), host.size()).append("\r\nConnection: close\r\n\r\n");
  client.Send(request);
  return client.ReadAll();
}

}  // namespace nibble
