// HTTP/1.1 over connections that the listener hands over: /metrics, /healthz, /readyz, and /v1 for
// whoever answers it.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "server/http_exchange.h"
#include "server/listen_address.h"

namespace nibble {

struct HttpOptions {
  bool check_host = true;  // Answers only requests whose Host is an IP address or localhost.
  uint32_t header_bytes_max = 16 << 10;
  uint64_t body_bytes_max = 1 << 20;
  absl::Duration read_timeout = absl::Seconds(30);   // From one answer to the whole next request.
  absl::Duration write_timeout = absl::Seconds(30);  // Of one answer, or of one part of it.
};

// Serves every connection on one thread. Its own answers are rendered from snapshots and never
// wait; those of the API come when they are there, a part at a time, and no faster than the client
// reads. Requests of one connection are answered one after the other, so a client that pipelines
// waits for itself.
//
// Thread-safe.
class HttpServer {
 public:
  // Renders /metrics; called on the server's thread.
  using RenderMetrics = std::function<std::string()>;

  // `api` (null: there is no /v1) must outlive the server.
  HttpServer(const HttpOptions& options, RenderMetrics render_metrics, HttpApi* api = nullptr);

  // Closes every connection and ends the thread.
  ~HttpServer();

  // Takes a connected, non-blocking socket.
  void Serve(Descriptor connection);

  // What /readyz says: false at first.
  void SetReady(bool ready) { ready_ = ready; }

 private:
  class Core;

  std::atomic<bool> ready_ = false;
  std::unique_ptr<Core> core_;
};

}  // namespace nibble
