// The registry's events as lines of the log, and its end when the device breaks.

#pragma once

#include <string>
#include <utility>

#include "server/logging.h"
#include "server/model_registry.h"

namespace nibble {

// Logs each load's begin and end with its figures. `logger` must outlive it.
class RegistryLog final : public RegistryObserver {
 public:
  RegistryLog(Logger& logger, std::string device) : logger_(logger), device_(std::move(device)) {}

  void OnStateChanged(const ModelInfo& model) override;
  void OnRead(int64_t) override {}
  void OnLoadFinished(const ModelInfo& model, const absl::Status& status) override;
  void OnRefused(absl::string_view) override {}
  void OnCache(const CacheEvent& event) override;

  // Ends the process with kDeviceBrokenExitCode: nothing will run on the device any more, and what
  // it holds cannot be freed; a supervisor starts a new process. No destructor runs, because some
  // would wait for the device.
  [[noreturn]] void OnDeviceBroken(const absl::Status& health) override;

 private:
  Logger& logger_;
  const std::string device_;
};

inline constexpr int kDeviceBrokenExitCode = 3;

// Tells two observers, in order.
class ObserverPair final : public RegistryObserver {
 public:
  ObserverPair(RegistryObserver& first, RegistryObserver& second)
      : first_(first), second_(second) {}

  void OnStateChanged(const ModelInfo& model) override {
    first_.OnStateChanged(model);
    second_.OnStateChanged(model);
  }
  void OnRead(int64_t bytes) override {
    first_.OnRead(bytes);
    second_.OnRead(bytes);
  }
  void OnLoadFinished(const ModelInfo& model, const absl::Status& status) override {
    first_.OnLoadFinished(model, status);
    second_.OnLoadFinished(model, status);
  }
  void OnRefused(absl::string_view reason) override {
    first_.OnRefused(reason);
    second_.OnRefused(reason);
  }
  void OnCache(const CacheEvent& event) override {
    first_.OnCache(event);
    second_.OnCache(event);
  }
  void OnDeviceBroken(const absl::Status& health) override {
    first_.OnDeviceBroken(health);
    second_.OnDeviceBroken(health);
  }
  void OnInterTokenLatency(absl::string_view model, absl::Duration latency) override {
    first_.OnInterTokenLatency(model, latency);
    second_.OnInterTokenLatency(model, latency);
  }
  void OnRequestDone(absl::string_view model, const RequestTimes& times,
                     const absl::Status& status) override {
    first_.OnRequestDone(model, times, status);
    second_.OnRequestDone(model, times, status);
  }

 private:
  RegistryObserver& first_;
  RegistryObserver& second_;
};

}  // namespace nibble
