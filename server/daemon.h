// The daemon: the only owner of everything long-lived, in the order of construction. Destruction in
// reverse order is the shutdown plan.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/matrix.h"
#include "loader/load_plan.h"
#include "server/model_registry.h"

namespace nibble {

// Of `nibble serve`, after flags, environment and file are merged.
struct DaemonOptions {
  std::string device;  // "host", "cuda:0"; empty: the first GPU, or the host.

  // Exactly one is set, or none: 90 % of a card, half of the host's available memory.
  std::optional<int64_t> vram_budget_bytes;
  std::optional<double> vram_budget_ratio;  // Of the device's total, 0 to 1.

  std::optional<int64_t> runtime_reserve_bytes;  // Default: 1 GiB on CUDA, 0 on the host.
  int64_t staging_bytes = kStagingBytesDefault;
  std::vector<std::string> model_roots;
  std::vector<std::string> export_roots;       // None: exports are off.
  std::string listen = "127.0.0.1:50051";      // gRPC. Port 0: any free one, see port files.
  std::string http_listen = "127.0.0.1:8080";  // "off": no HTTP.
  bool insecure = false;  // Allows a listen address that others can reach, without TLS.
  std::string cache_dir;  // Of the quantized cache; empty: there is none.
  CacheLimit cache_limit;
  int max_loads = 2;
  ProductOptions products = {Arithmetic::kBf16, false};  // Of every model's engine.
  int reader_threads = 0;                                // 0: as many as suit the device.
  int max_connections = 1024;                            // Of both protocols together.
  absl::Duration drain_timeout = absl::Seconds(30);
  std::string log_level = "info";   // trace debug info warn error.
  std::string log_format = "text";  // text: key=value lines; json: a JSON object a line.
  std::string port_file;            // Written when both ports are open: "grpc=N\nhttp=M\n".
  std::vector<LoadRequest> models;  // Loaded at start.
};

// Runs the daemon until SIGTERM or SIGINT; drains, then returns. Logs to stderr.
//
// Returns: the exit code: 0 after a drain, 1 if it could not start (an address in use, a budget
//   smaller than runtime, no such device). A broken GPU context ends the process with 3 and a clear
//   last line, without running destructors.
int RunDaemon(const DaemonOptions& options);

}  // namespace nibble
