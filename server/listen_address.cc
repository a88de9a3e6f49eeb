#include "server/listen_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace nibble {
namespace {

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t bytes = 0;

  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

// False if the host is no address.
bool Fill(const ListenAddress& address, SocketAddress& target) {
  if (address.ipv6()) {
    auto* ipv6 = reinterpret_cast<sockaddr_in6*>(&target.storage);
    ipv6->sin6_family = AF_INET6;
    ipv6->sin6_port = htons(address.port);
    target.bytes = sizeof(*ipv6);
    return inet_pton(AF_INET6, address.host.c_str(), &ipv6->sin6_addr) == 1;
  }
  auto* ipv4 = reinterpret_cast<sockaddr_in*>(&target.storage);
  ipv4->sin_family = AF_INET;
  ipv4->sin_port = htons(address.port);
  target.bytes = sizeof(*ipv4);
  return inet_pton(AF_INET, address.host.c_str(), &ipv4->sin_addr) == 1;
}

uint16_t PortOf(SocketAddress& address) {
  return ntohs(address.storage.ss_family == AF_INET6
                   ? reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port
                   : reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port);
}

absl::Status SocketError(const ListenAddress& address, absl::string_view what, int error) {
  const std::string message =
      absl::StrCat("listen on ", address.ToString(), ": ", what, ": ", std::strerror(error));
  switch (error) {
    case EADDRINUSE:
      return absl::UnavailableError(absl::StrCat("listen on ", address.ToString(),
                                                 ": the address is in use; is another daemon ",
                                                 "running? Choose another port, or 0 for any"));
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
      return absl::InvalidArgumentError(message);
    case EACCES:
      return absl::PermissionDeniedError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::Status Malformed(absl::string_view name, absl::string_view text, absl::string_view found) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": expected HOST:PORT with HOST an IPv4 address, an IPv6 address in ",
                   "brackets, localhost or nothing, found ", found, " in \"", text, "\""));
}

}  // namespace

bool ListenAddress::loopback() const {
  SocketAddress socket;
  if (!Fill(*this, socket)) {
    return false;
  }
  if (ipv6()) {
    const in6_addr& found = reinterpret_cast<sockaddr_in6*>(&socket.storage)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(&found);
  }
  const uint32_t found = ntohl(reinterpret_cast<sockaddr_in*>(&socket.storage)->sin_addr.s_addr);
  return found >> 24 == 127;  // 127.0.0.0/8, RFC 1122.
}

std::string ListenAddress::ToString() const {
  return ipv6() ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view name, absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) {
    return Malformed(name, text, "no port");
  }
  ListenAddress address;
  uint32_t port = 0;
  if (!absl::SimpleAtoi(text.substr(colon + 1), &port) || port > 65535) {
    return Malformed(name, text, "no port from 0 to 65535");
  }
  address.port = static_cast<uint16_t>(port);
  absl::string_view host = text.substr(0, colon);
  const bool bracketed = absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  address.host = host.empty() && !bracketed ? "::"
                 : host == "localhost"      ? "127.0.0.1"
                                            : std::string(host);
  SocketAddress socket;
  if ((absl::StrContains(host, ":") && !bracketed) || !Fill(address, socket)) {
    return Malformed(name, text, "no such host");
  }
  return address;
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    Descriptor old(std::exchange(fd_, other.Release()));
  }
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

int Descriptor::Release() { return std::exchange(fd_, -1); }

absl::StatusOr<Descriptor> OpenListeningSocket(ListenAddress& address) {
  SocketAddress socket_address;
  if (!Fill(address, socket_address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen on ", address.ToString(), ": expected an IP address"));
  }
  Descriptor listening(
      socket(address.ipv6() ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (listening.get() < 0) {
    return SocketError(address, "socket", errno);
  }
  // A restarted daemon takes its port at once, not when the last connection's TIME_WAIT is over.
  const int on = 1;
  const int off = 0;
  setsockopt(listening.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (address.ipv6()) {
    setsockopt(listening.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));  // "::" is both.
  }
  if (bind(listening.get(), socket_address.get(), socket_address.bytes) != 0) {
    return SocketError(address, "bind", errno);
  }
  if (listen(listening.get(), SOMAXCONN) != 0) {
    return SocketError(address, "listen", errno);
  }
  socket_address.bytes = sizeof(socket_address.storage);
  if (getsockname(listening.get(), socket_address.get(), &socket_address.bytes) != 0) {
    return SocketError(address, "getsockname", errno);
  }
  address.port = PortOf(socket_address);
  return listening;
}

}  // namespace nibble
