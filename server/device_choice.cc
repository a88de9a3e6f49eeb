#include "server/device_choice.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "loader/staging_ring.h"
#include "server/exporter.h"
#include "server/system_memory.h"

namespace nibble {
namespace {

constexpr double kCudaBudgetRatio = 0.9;
constexpr double kHostBudgetRatio = 0.5;

// Of loads: 64 default ones. Many more queues than a card has channels for gain nothing.
constexpr int kCudaLoadQueuesMax = 512;

int64_t RuntimeBytes(const DaemonOptions& options, DeviceKind kind) {
  return options.runtime_reserve_bytes.value_or(kind == DeviceKind::kCuda ? kCudaRuntimeBytes : 0);
}

absl::StatusOr<ChosenDevice> OpenHost(const DaemonOptions& options) {
  const absl::StatusOr<int64_t> available_bytes = AvailableHostBytes();
  if (!available_bytes.ok()) {
    return available_bytes.status();
  }
  const int64_t runtime_bytes = RuntimeBytes(options, DeviceKind::kHost);
  const absl::StatusOr<int64_t> budget_bytes =
      ChooseBudget(options, DeviceKind::kHost, *available_bytes, runtime_bytes);
  if (!budget_bytes.ok()) {
    return budget_bytes.status();
  }
  return ChosenDevice{OpenHostDevice(*budget_bytes), *budget_bytes, runtime_bytes};
}

absl::StatusOr<ChosenDevice> OpenCuda(const DaemonOptions& options, int ordinal) {
  const int core_count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const absl::StatusOr<int> queue_count = CudaQueueCount(options, core_count);
  if (!queue_count.ok()) {
    return queue_count.status();
  }
  absl::StatusOr<std::unique_ptr<Device>> device = OpenCudaDevice(ordinal, *queue_count);
  if (!device.ok()) {
    return device.status();
  }
  const absl::StatusOr<Device::Memory> memory = (*device)->QueryMemory();
  if (!memory.ok()) {
    return memory.status();
  }
  const int64_t runtime_bytes = RuntimeBytes(options, DeviceKind::kCuda);
  const absl::StatusOr<int64_t> budget_bytes =
      ChooseBudget(options, DeviceKind::kCuda, memory->total_bytes, runtime_bytes);
  if (!budget_bytes.ok()) {
    return budget_bytes.status();
  }
  return ChosenDevice{*std::move(device), *budget_bytes, runtime_bytes};
}

}  // namespace

absl::StatusOr<std::string> ChooseDeviceName(absl::string_view name, int cuda_count) {
  if (name.empty()) {
    return cuda_count > 0 ? "cuda:0" : "host";
  }
  if (name == "host") {
    return std::string(name);
  }
  if (name == "cuda") {
    name = "cuda:0";
  }
  absl::string_view ordinal_text = name;
  int ordinal = 0;
  if (!absl::ConsumePrefix(&ordinal_text, "cuda:") || !absl::SimpleAtoi(ordinal_text, &ordinal) ||
      ordinal < 0 || name != absl::StrCat("cuda:", ordinal)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device: expected host, cuda or cuda:N, found \"", name, "\""));
  }
  if (ordinal >= cuda_count) {
    return absl::NotFoundError(
        absl::StrCat("--device ", name, ": found ", cuda_count, " GPUs that this program can use"));
  }
  return std::string(name);
}

absl::StatusOr<int64_t> ChooseBudget(const DaemonOptions& options, DeviceKind kind,
                                     int64_t device_bytes, int64_t runtime_bytes) {
  const double ratio = options.vram_budget_ratio.value_or(
      kind == DeviceKind::kCuda ? kCudaBudgetRatio : kHostBudgetRatio);
  if (!(ratio > 0 && ratio <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--vram-budget: expected more than 0 % and at most 100 %, found ", ratio * 100, " %"));
  }
  const int64_t budget_bytes = options.vram_budget_bytes.value_or(
      static_cast<int64_t>(static_cast<double>(device_bytes) * ratio));
  if (budget_bytes <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--vram-budget: expected more than 0 bytes, found ", budget_bytes));
  }
  // A host may have swap and files that it can drop: more than is available now is the operator's
  // decision. A card has what it has.
  if (kind == DeviceKind::kCuda && budget_bytes > device_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("--vram-budget: expected at most ", device_bytes,
                                                   " bytes, what the card has; found ",
                                                   budget_bytes));
  }
  if (runtime_bytes < 0 || budget_bytes <= runtime_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--vram-budget: ", budget_bytes, " bytes leave nothing beside the ",
                     runtime_bytes, " of --runtime-reserve; raise the one or lower the other"));
  }
  return budget_bytes;
}

absl::StatusOr<int> CudaQueueCount(const DaemonOptions& options, int core_count) {
  const int readers =
      ShapeStaging(kCudaTraits, options.staging_bytes, options.reader_threads, core_count)
          .reader_count;
  if (options.max_loads > kCudaLoadQueuesMax / readers) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-loads: expected at most ", kCudaLoadQueuesMax / readers, " loads with ",
                     readers, " --reader-threads each on a GPU, found ", options.max_loads));
  }
  const int exports = options.export_roots.empty() ? 0 : kExportsMax;
  const int cache_writers = options.cache_dir.empty() ? 0 : 1;
  return options.max_loads * readers + exports + cache_writers;
}

absl::StatusOr<ChosenDevice> OpenChosenDevice(const DaemonOptions& options) {
  const absl::StatusOr<std::string> name =
      ChooseDeviceName(options.device, static_cast<int>(ListCudaDevices().size()));
  if (!name.ok()) {
    return name.status();
  }
  if (*name == "host") {
    return OpenHost(options);
  }
  int ordinal = 0;
  Check(absl::SimpleAtoi(absl::StripPrefix(*name, "cuda:"), &ordinal), "a chosen GPU has a number");
  return OpenCuda(options, ordinal);
}

}  // namespace nibble
