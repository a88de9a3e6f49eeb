#include "server/daemon.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/device_choice.h"
#include "server/exporter.h"
#include "server/front.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/registry_log.h"
#include "server/shutdown_signals.h"

namespace nibble {
namespace {

// For calls that still run when every model is gone: answers on their way.
constexpr absl::Duration kCallGrace = absl::Seconds(2);

// Existing directories with every symbolic link resolved, as paths are confined to them. `flag`
// names them.
//
// Errors: NOT_FOUND; INVALID_ARGUMENT if one is no directory.
absl::StatusOr<std::vector<std::string>> ResolveRoots(absl::string_view flag,
                                                      std::vector<std::string> roots) {
  for (std::string& root : roots) {
    std::error_code error;
    const std::filesystem::path path = std::filesystem::canonical(root, error);
    if (error) {
      return absl::NotFoundError(absl::StrCat(flag, " ", root, ": ", error.message()));
    }
    if (!std::filesystem::is_directory(path, error)) {
      return absl::InvalidArgumentError(absl::StrCat(flag, " ", root, ": expected a directory"));
    }
    root = path.string();
  }
  return roots;
}

// Descriptors beside those of connections: shards of the loads that run, sockets, logs.
constexpr rlim_t kOtherDescriptors = 1024;

// Raises the process's limit of open files (often 1024 at first, whatever the system allows) so
// that the limit on connections is the one that is reached.
void RaiseDescriptorLimit(int connections_max, Logger& logger) {
  const rlim_t wanted = static_cast<rlim_t>(connections_max) + kOtherDescriptors;
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
    return;
  }
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
    logger.Log(LogLevel::kWarn, "few open files are allowed",
               {{"limit", limit.rlim_cur}, {"wanted", wanted}, {"connections", connections_max}});
  }
}

// What is checked before a daemon is built.
struct CheckedOptions {
  RegistryOptions registry;
  std::vector<std::string> export_roots;
};

// Members in the order of construction; destruction in reverse order is the shutdown.
class Daemon {
 public:
  Daemon(Logger& logger, ChosenDevice chosen, const CheckedOptions& options)
      : logger_(logger),
        device_(std::move(chosen.device)),
        budget_(chosen.budget_bytes),
        runtime_(ReserveRuntime(budget_, chosen.runtime_bytes)),
        metrics_(NIBBLE_VERSION, CudaVersionText()),
        log_(logger, device_->name()),
        observers_(metrics_, log_),
        registry_(*device_, budget_, options.registry, observers_),
        exporter_(*device_, registry_, options.export_roots) {}

  absl::Status Start(const FrontOptions& options) {
    absl::StatusOr<std::unique_ptr<Front>> front =
        Front::Start(options, {*device_, budget_, registry_, exporter_, metrics_, logger_});
    if (!front.ok()) {
      return front.status();
    }
    front_ = *std::move(front);
    logger_.Log(
        LogLevel::kInfo, "ready",
        {{"version", NIBBLE_VERSION},
         {"device", device_->name()},
         {"kind", device_->description()},
         {"budget_bytes", budget_.Snapshot().limit_bytes},
         {"runtime_reserve_bytes", runtime_.empty() ? 0 : runtime_.reserved().total()},
         {"grpc", front_->grpc_address().ToString()},
         {"http", options.http_listen.empty() ? "off" : front_->http_address().ToString()}});
    return absl::OkStatus();
  }

  // Asks for the models of the configuration. One that cannot be loaded is logged and does not stop
  // the others.
  void LoadModels(const std::vector<LoadRequest>& models) {
    for (LoadRequest request : models) {
      request.detach = true;
      if (const auto ticket = registry_.Load(request, nullptr); !ticket.ok()) {
        logger_.Log(LogLevel::kWarn, "load failed",
                    {{"model", request.model},
                     {"source", request.source},
                     {"code", absl::StatusCodeToString(ticket.status().code())},
                     {"message", ticket.status().message()}});
      }
    }
  }

  void Shutdown(absl::Duration drain_timeout) {
    front_->StopServing();
    registry_.Shutdown(drain_timeout);
    front_->Shutdown(kCallGrace);
  }

 private:
  static VramBudget::Reservation ReserveRuntime(VramBudget& budget, int64_t runtime_bytes) {
    if (runtime_bytes == 0) {
      return {};
    }
    PurposeBytes bytes;
    bytes[Purpose::kRuntime] = runtime_bytes;
    absl::StatusOr<VramBudget::Reservation> reservation = budget.Reserve(kRuntimeOwner, bytes);
    Check(reservation.ok(), "an empty budget above the runtime reserve has room for it");
    return *std::move(reservation);
  }

  Logger& logger_;
  const std::unique_ptr<Device> device_;
  VramBudget budget_;
  const VramBudget::Reservation runtime_;
  Metrics metrics_;
  RegistryLog log_;
  ObserverPair observers_;
  ModelRegistry registry_;
  Exporter exporter_;
  std::unique_ptr<Front> front_;
};

// Everything that must hold before a daemon is built.
absl::StatusOr<CheckedOptions> CheckOptions(const DaemonOptions& options) {
  // Without a model root the current directory is one; without an export root there is none.
  const std::vector<std::string> here = {"."};
  absl::StatusOr<std::vector<std::string>> roots =
      ResolveRoots("--model-root", options.model_roots.empty() ? here : options.model_roots);
  absl::StatusOr<std::vector<std::string>> export_roots =
      ResolveRoots("--export-root", options.export_roots);
  for (const absl::Status& status : {roots.status(), export_roots.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  const struct {
    const char* flag;
    int64_t value;
    int64_t min;
  } numbers[] = {
      {"--staging", options.staging_bytes, kStagingBytesMin},
      {"--max-loads", options.max_loads, 1},
      {"--max-connections", options.max_connections, 1},
      {"--reader-threads", options.reader_threads, 0},
      {"--drain-timeout", absl::ToInt64Nanoseconds(options.drain_timeout), 0},
  };
  for (const auto& number : numbers) {
    if (number.value < number.min) {
      return absl::InvalidArgumentError(
          absl::StrCat(number.flag, ": expected at least ", number.min, ", found ", number.value));
    }
  }
  CheckedOptions checked;
  checked.registry.model_roots = *std::move(roots);
  checked.registry.staging_bytes = options.staging_bytes;
  checked.registry.cache_directory = options.cache_dir;
  checked.registry.cache_limit = options.cache_limit;
  checked.registry.max_loads = options.max_loads;
  checked.registry.engine.products = options.products;
  checked.registry.loader.reader_count = options.reader_threads;
  checked.export_roots = *std::move(export_roots);
  return checked;
}

absl::StatusOr<std::unique_ptr<Daemon>> StartDaemon(const DaemonOptions& options, Logger& logger) {
  const absl::StatusOr<CheckedOptions> checked = CheckOptions(options);
  if (!checked.ok()) {
    return checked.status();
  }
  RaiseDescriptorLimit(options.max_connections, logger);
  absl::StatusOr<ChosenDevice> chosen = OpenChosenDevice(options);
  if (!chosen.ok()) {
    return chosen.status();
  }
  auto daemon = std::make_unique<Daemon>(logger, *std::move(chosen), *checked);
  FrontOptions front;
  front.listen = options.listen;
  front.http_listen = options.http_listen == "off" ? "" : options.http_listen;
  front.insecure = options.insecure;
  front.connections_max = options.max_connections;
  front.port_file = options.port_file;
  if (absl::Status status = daemon->Start(front); !status.ok()) {
    return status;
  }
  daemon->LoadModels(options.models);
  return daemon;
}

}  // namespace

int RunDaemon(const DaemonOptions& options) {
  const absl::StatusOr<LogLevel> level = ParseLogLevel(options.log_level);
  const absl::StatusOr<LogFormat> format = ParseLogFormat(options.log_format);
  if (!level.ok() || !format.ok()) {
    std::cerr << "nibble: " << (level.ok() ? format.status() : level.status()).message() << "\n";
    return EXIT_FAILURE;
  }
  Logger logger(*level, *format);
  ShutdownSignals signals;  // Before any thread, so that all inherit the mask.
  absl::StatusOr<std::unique_ptr<Daemon>> daemon = StartDaemon(options, logger);
  if (!daemon.ok()) {
    logger.Log(LogLevel::kError, "cannot start",
               {{"code", absl::StatusCodeToString(daemon.status().code())},
                {"message", daemon.status().message()}});
    return EXIT_FAILURE;
  }
  const std::string signal = signals.Wait();
  signals.ExitOnNext();
  logger.Log(LogLevel::kInfo, "draining",
             {{"signal", signal},
              {"drain_timeout_seconds", absl::ToDoubleSeconds(options.drain_timeout)}});
  (*daemon)->Shutdown(options.drain_timeout);
  daemon->reset();
  logger.Log(LogLevel::kInfo, "stopped");
  return EXIT_SUCCESS;
}

}  // namespace nibble
