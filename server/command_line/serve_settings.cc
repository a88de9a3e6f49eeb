#include "server/command_line/serve_settings.h"

#include "absl/strings/str_cat.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/settings_file.h"
#include "server/command_line/spec_settings.h"

namespace nibble {
namespace {

constexpr int64_t kThreadsMax = 1024;         // More than any machine has use for.
constexpr int64_t kConnectionsMax = 1000000;  // Beyond the descriptors of a process.

Setting BudgetSetting(DaemonOptions* daemon) {
  return {"vram-budget",
          "SIZE",
          "All the device memory that this daemon may ever hold, or a share of the device such as "
          "90%. A load that would exceed it is refused.",
          "90% of a card; half of the memory available to a host device",
          false,
          [daemon](const std::vector<std::string>& values) {
            const absl::StatusOr<BudgetSize> budget = ParseBudgetSize(values.front());
            if (budget.ok()) {
              daemon->vram_budget_bytes = budget->bytes;
              daemon->vram_budget_ratio = budget->ratio;
            }
            return budget.status();
          }};
}

Setting CacheSizeSetting(DaemonOptions* daemon) {
  return {"cache-size",
          "SIZE",
          "The most that the cache's entries may take together, or a share of its disk (of what is "
          "free and what they take) such as 20%. The least recently used go first.",
          "50%",
          false,
          [daemon](const std::vector<std::string>& values) {
            const absl::StatusOr<BudgetSize> size = ParseBudgetSize(values.front());
            if (size.ok()) {
              daemon->cache_limit.bytes = size->bytes;
              daemon->cache_limit.disk_ratio = size->ratio.value_or(0);
            }
            return size.status();
          }};
}

Setting ThreadCount(std::string name, std::string help, std::string default_text, int64_t least,
                    int* target) {
  return CountSetting(std::move(name), std::move(help), std::move(default_text), least, kThreadsMax,
                      [target](int64_t count) { *target = static_cast<int>(count); });
}

SettingGroup MemorySettings(DaemonOptions* daemon) {
  Setting device = TextSetting("device", "DEVICE", "The device to drive: host, cuda or cuda:N.",
                               &daemon->device);
  device.default_text = "the first GPU, or the host if there is none";
  return {
      "Memory",
      {std::move(device), BudgetSetting(daemon),
       SizeSetting("staging",
                   "The fixed part of every load's peak, through which its tiles pass. More helps "
                   "only where reading is bursty.",
                   "128MiB", [daemon](int64_t bytes) { daemon->staging_bytes = bytes; }),
       SizeSetting("runtime-reserve",
                   "Part of the budget set aside for the CUDA context, modules and graphs.",
                   "1GiB on CUDA, 0 on the host",
                   [daemon](int64_t bytes) { daemon->runtime_reserve_bytes = bytes; })}};
}

SettingGroup ModelSettings(ServeOptions* options) {
  DaemonOptions* daemon = &options->daemon;
  return {
      "Models",
      {ListSetting("model-root", "DIR",
                   "Directory beneath which checkpoints lie; nothing outside of them is read. A "
                   "Hugging Face cache (its hub directory) serves hf: sources.",
                   &daemon->model_roots),
       ListSetting("export-root", "DIR",
                   "Directory beneath which `nibble export` may write; nothing is written outside "
                   "of them. Without one exports are refused.",
                   &daemon->export_roots),
       TextSetting("cache-dir", "DIR",
                   "Directory that keeps the results of loads, so that the next load of the same "
                   "source and quantization reads 4-bit weights instead. It must be there; several "
                   "daemons may share it. Without one nothing is kept.",
                   &daemon->cache_dir),
       CacheSizeSetting(daemon),
       ThreadCount("max-loads", "Loads that run at a time; others queue.", "2", 1,
                   &daemon->max_loads),
       ThreadCount("reader-threads", "Threads that read and quantize in each load.",
                   "as many as suit the device", 0, &daemon->reader_threads),
       ChoiceSetting(
           "arithmetic",
           "How weights are multiplied: bf16 may round both factors of a product, each by "
           "at most a 256th, where the device is faster so; fp32 does not, and is for "
           "checks. Sums are fp32.",
           {"fp32", "bf16"}, 1,
           [daemon](size_t index) {
             daemon->products.arithmetic = index == 0 ? Arithmetic::kFp32 : Arithmetic::kBf16;
           }),
       SwitchSetting("batch-invariant",
                     "One order of sums whatever else is in the batch, so that an answer does not "
                     "depend on it. Slower.",
                     &daemon->products.batch_invariant),
       TextSetting("config", "FILE",
                   "TOML file with the same settings under [serve], and models to load at start as "
                   "[[model]] tables.",
                   &options->config)}};
}

SettingGroup NetworkSettings(DaemonOptions* daemon) {
  return {
      "Network",
      {TextSetting("listen", "HOST:PORT", "Address for gRPC. Port 0 takes a free one.",
                   &daemon->listen),
       TextSetting("http-listen", "HOST:PORT",
                   "Address for HTTP: OpenAI's API, /metrics, /healthz, /readyz; `off` for none.",
                   &daemon->http_listen),
       SwitchSetting("insecure",
                     "Allows addresses that other machines can reach, although nothing asks who "
                     "they are.",
                     &daemon->insecure),
       CountSetting("max-connections", "Connections of both protocols together.", "1024", 1,
                    kConnectionsMax,
                    [daemon](int64_t count) { daemon->max_connections = static_cast<int>(count); }),
       TextSetting("port-file", "FILE",
                   "Written when both ports are open: lines grpc=N and http=M.",
                   &daemon->port_file)}};
}

SettingGroup OperationSettings(DaemonOptions* daemon) {
  return {"Operation",
          {DurationSetting("drain-timeout",
                           "How long running requests may go on after SIGTERM before they are "
                           "aborted.",
                           &daemon->drain_timeout),
           ChoiceSetting(
               "log-level", "The least important lines that are logged, to stderr.",
               {"trace", "debug", "info", "warn", "error"}, 2,
               [daemon](size_t index) {
                 constexpr const char* kLevels[] = {"trace", "debug", "info", "warn", "error"};
                 daemon->log_level = kLevels[index];
               }),
           ChoiceSetting(
               "log-format", "key=value text, or a JSON object a line.", {"text", "json"}, 0,
               [daemon](size_t index) { daemon->log_format = index == 0 ? "text" : "json"; })}};
}

// Reads one [[model]] table.
absl::StatusOr<LoadRequest> ReadModel(const std::string& file_name,
                                      const std::vector<GivenSetting>& table) {
  LoadRequest request;
  std::vector<Setting> settings = QuantizationSettings(&request.quantization);
  for (Setting& setting : ServingSettings(&request.serving)) {
    settings.push_back(std::move(setting));
  }
  settings.push_back(TextSetting("name", "NAME", "", &request.model));
  settings.push_back(TextSetting("source", "SOURCE", "", &request.source));
  settings.push_back(SwitchSetting("pinned", "", &request.pinned));
  std::vector<std::string> taken;
  if (absl::Status status = ApplySettings(settings, table, taken); !status.ok()) {
    return status;
  }
  if (request.model.empty() || request.source.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(table.empty() ? file_name : table.front().origin,
                                                   ": a [[model]] needs name and source"));
  }
  request.detach = true;  // Nobody waits for it.
  return request;
}

}  // namespace

std::vector<SettingGroup> ServeSettings(ServeOptions* options) {
  return {MemorySettings(&options->daemon), ModelSettings(options),
          NetworkSettings(&options->daemon), OperationSettings(&options->daemon)};
}

absl::StatusOr<std::vector<GivenSetting>> ReadServeFile(ServeOptions& options) {
  if (options.config.empty()) {
    return std::vector<GivenSetting>();
  }
  absl::StatusOr<SettingsFile> file = ReadSettingsFile(options.config);
  if (!file.ok()) {
    return file.status();
  }
  for (const std::vector<GivenSetting>& table : file->models) {
    absl::StatusOr<LoadRequest> model = ReadModel(options.config, table);
    if (!model.ok()) {
      return model.status();
    }
    options.daemon.models.push_back(*std::move(model));
  }
  return std::move(file->serve);
}

}  // namespace nibble
