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
    const auto read_bytes = static_cast<double>(model.read_bytes);
    logger_.Log(
        LogLevel::kInfo, "load finished",
        {{"model", model.name},
         {"request_id", model.request_id},
         {"seconds", seconds},
         {"read_bytes", model.read_bytes},
         {"read_bytes_per_second", seconds > 0 ? static_cast<int64_t>(read_bytes / seconds) : 0},
         {"loaded_from", model.from_cache ? "cache" : "source"},
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

void RegistryLog::OnCache(const CacheEvent& event) {
  const auto tell_why = [this, &event](LogLevel level, absl::string_view what) {
    const LogField code("code", absl::StatusCodeToString(event.why.code()));
    const LogField message("message", event.why.message());
    if (event.model.empty()) {
      logger_.Log(level, what, {code, message});
    } else {
      logger_.Log(level, what, {{"model", event.model}, code, message});
    }
  };
  switch (event.kind) {
    case CacheEvent::Kind::kOpened:
      logger_.Log(LogLevel::kInfo, "quantized cache",
                  {{"entries", event.usage.entry_count}, {"bytes", event.usage.bytes}});
      return;
    case CacheEvent::Kind::kOff:
      return tell_why(LogLevel::kWarn, "no quantized cache");
    case CacheEvent::Kind::kReadOnly:
      return tell_why(LogLevel::kWarn, "quantized cache is only read");
    case CacheEvent::Kind::kHit:
    case CacheEvent::Kind::kMiss:
      return;  // "load finished" says so.
    case CacheEvent::Kind::kFallback:
      return tell_why(LogLevel::kWarn, "cache entry is not usable, loaded from the source");
    case CacheEvent::Kind::kWritten:
      logger_.Log(LogLevel::kInfo, "cache entry written",
                  {{"model", event.model},
                   {"bytes", event.written_bytes},
                   {"evicted", event.evicted_count},
                   {"cache_bytes", event.usage.bytes}});
      return;
    case CacheEvent::Kind::kNotWritten:
      return tell_why(absl::IsCancelled(event.why) ? LogLevel::kInfo : LogLevel::kWarn,
                      "cache entry not written");
  }
}

void RegistryLog::OnDeviceBroken(const absl::Status& health) {
  logger_.Log(LogLevel::kCritical,
              absl::StrCat("device ", device_, " is broken: ", health.message(),
                           "; exiting so that a supervisor restarts"));
  logger_.Flush();
  _exit(kDeviceBrokenExitCode);
}

}  // namespace nibble
