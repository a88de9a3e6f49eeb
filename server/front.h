// The daemon's face: gRPC and HTTP behind one accept loop, over one registry.

#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device.h"
#include "loader/vram_budget.h"
#include "server/exporter.h"
#include "server/listen_address.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/model_registry.h"

namespace nibble {

struct FrontOptions {
  std::string listen = "127.0.0.1:50051";
  std::string http_listen = "127.0.0.1:8080";  // Empty: no HTTP.
  bool insecure = false;                       // Allows an address that others can reach.
  int connections_max = 1024;
  std::string port_file;  // Written, whole or not at all, when both ports are open.
};

// What is served. All of it must outlive the front.
struct FrontBackend {
  const Device& device;
  VramBudget& budget;
  ModelRegistry& registry;
  Exporter& exporter;
  const Metrics& metrics;
  Logger& logger;
};

// Answers from construction to destruction. Thread-safe.
class Front {
 public:
  // Opens the ports and answers: health says SERVING.
  //
  // Errors: INVALID_ARGUMENT for an address that is malformed, or that others can reach without
  //   `insecure`; UNAVAILABLE if one is in use; what else opening a socket or the port file says.
  static absl::StatusOr<std::unique_ptr<Front>> Start(const FrontOptions& options,
                                                      const FrontBackend& backend);

  // Ends at once whatever still runs.
  ~Front();

  // Health and /readyz say no from now on, calls are still answered.
  void StopServing();

  // Ends watches, waits `grace` for calls that run, cancels the rest, and closes everything.
  void Shutdown(absl::Duration grace);

  const ListenAddress& grpc_address() const { return grpc_address_; }
  const ListenAddress& http_address() const { return http_address_; }  // Port 0 without HTTP.

 private:
  class Servers;

  Front(ListenAddress grpc_address, ListenAddress http_address, std::unique_ptr<Servers> servers);

  const ListenAddress grpc_address_;
  const ListenAddress http_address_;
  const std::unique_ptr<Servers> servers_;
};

}  // namespace nibble
