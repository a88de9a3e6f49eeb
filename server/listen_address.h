// Where a daemon listens, and the listening sockets themselves.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

struct ListenAddress {
  std::string host;   // "127.0.0.1", "::1", "0.0.0.0"; without brackets.
  uint16_t port = 0;  // 0: any free one.

  bool ipv6() const { return host.find(':') != std::string::npos; }

  // Whether only this machine can reach it.
  bool loopback() const;

  // "127.0.0.1:50051", "[::1]:50051".
  std::string ToString() const;
};

// Parses "HOST:PORT", HOST an IPv4 address, an IPv6 address in brackets, `localhost` (127.0.0.1) or
// nothing (all addresses of both families). `name` is the setting's, for the error.
//
// Errors: INVALID_ARGUMENT. Names other than localhost are refused: which address they mean is
//   somebody else's decision, and a wrong one would open the daemon to a network.
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view name, absl::string_view text);

// A file descriptor that closes itself. Move-only.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.Release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int get() const { return fd_; }
  int Release();

 private:
  int fd_ = -1;
};

// Opens a non-blocking, close-on-exec listening socket. On return `address.port` is the port that
// was taken.
//
// Errors: UNAVAILABLE if the address is in use; INVALID_ARGUMENT if this machine does not have it;
//   PERMISSION_DENIED; each names the address.
absl::StatusOr<Descriptor> OpenListeningSocket(ListenAddress& address);

}  // namespace nibble
