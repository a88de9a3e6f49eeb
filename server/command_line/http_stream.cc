#include "server/command_line/http_stream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

absl::Status Failed(const char* what) {
  return absl::UnavailableError(absl::ErrnoToStatus(errno, what).message());
}

}  // namespace

absl::StatusOr<std::string> PostAndRead(const ListenAddress& address, absl::string_view path,
                                        absl::string_view json) {
  const Descriptor connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in target = {};
  target.sin_family = AF_INET;
  target.sin_port = htons(address.port);
  inet_pton(AF_INET, address.host.c_str(), &target.sin_addr);
  const int on = 1;
  setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (connect(connection.get(), reinterpret_cast<const sockaddr*>(&target), sizeof(target)) != 0) {
    return Failed("HTTP: cannot connect");
  }
  const std::string request = absl::StrCat(
      "POST ", path, " HTTP/1.1\r\nHost: ", address.ToString(),
      "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ", json.size(),
      "\r\n\r\n", json);
  for (absl::string_view left = request; !left.empty();) {
    const ssize_t sent = send(connection.get(), left.data(), left.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      return Failed("HTTP: cannot send");
    }
    left.remove_prefix(static_cast<size_t>(sent));
  }
  std::string reply;
  std::array<char, 16 << 10> piece;
  for (;;) {
    const ssize_t count = recv(connection.get(), piece.data(), piece.size(), 0);
    if (count == 0) {
      return reply;
    }
    if (count < 0) {
      return Failed("HTTP: cannot read");
    }
    reply.append(piece.data(), static_cast<size_t>(count));
  }
}

}  // namespace nibble
