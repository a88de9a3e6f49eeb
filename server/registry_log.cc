#include "server/registry_log.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace nibble {

void RegistryLog::OnStateChanged(const ModelInfo& model) {
  switch (model.state) {
    case ModelState::kLoading:
      logger_.Log(LogLevel::kInfo, "load started",
                  {{"model", model.name},
                   {"source", model.source},
                   {"request_id", model.request_id},
                   {"format", FormatName(model.quantization.format)},
                   {"source_bytes", model.plan->source_bytes},
                   {"resident_bytes", model.plan->resident_bytes()},
                   {"peak_bytes", model.plan->peak_bytes()},
                   {"warnings", model.plan->warnings.size()}});
      return;
    case ModelState::kUnloaded:
      logger_.Log(LogLevel::kInfo, "model unloaded",
                  {{"model", model.name},
                   {"resident_bytes", model.plan == nullptr ? 0 : model.plan->resident_bytes()}});
      return;
    case ModelState::kQueued:
    case ModelState::kReady:
    case ModelState::kDraining:
    case ModelState::kFailed:
      logger_.Log(LogLevel::kDebug, "model state",
                  {{"model", model.name}, {"state", ModelStateName(model.state)}});
      return;
  }
}

void RegistryLog::OnLoadFinished(const ModelInfo& model, const absl::Status& status) {
  if (status.ok()) {
    const double seconds = absl::ToDoubleSeconds(model.load_duration);
    const auto source_bytes = static_cast<double>(model.plan->source_bytes);
    logger_.Log(LogLevel::kInfo, "load finished",
                {{"model", model.name},
                 {"request_id", model.request_id},
                 {"seconds", seconds},
                 {"source_bytes_per_second",
                  seconds > 0 ? static_cast<int64_t>(source_bytes / seconds) : 0},
                 {"resident_bytes", model.plan->resident_bytes()},
                 {"peak_bytes", model.peak_bytes},
                 {"quantized_ratio", model.plan->quantized_ratio()}});
    return;
  }
  logger_.Log(absl::IsCancelled(status) ? LogLevel::kInfo : LogLevel::kWarn, "load failed",
              {{"model", model.name},
               {"source", model.source},
               {"request_id", model.request_id},
               {"code", absl::StatusCodeToString(status.code())},
               {"message", status.message()}});
}

void RegistryLog::OnDeviceBroken(const absl::Status& health) {
  logger_.Log(LogLevel::kCritical,
              absl::StrCat("device ", device_, " is broken: ", health.message(),
                           "; exiting so that a supervisor restarts"));
  logger_.Flush();
  _exit(kDeviceBrokenExitCode);
}

}  // namespace nibble
