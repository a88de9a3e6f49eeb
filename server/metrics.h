// What Prometheus sees: counters and histograms that follow the registry, beside the gauges of a
// snapshot. Names and labels are those of README.md and never change.

#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "server/listener.h"
#include "server/model_registry.h"
#include "server/request_metrics.h"
#include "server/system_memory.h"

namespace nibble {

// Thread-safe.
class Metrics final : public RegistryObserver {
 public:
  // `version` is nibble's, `cuda` what CudaVersionText() says.
  Metrics(const std::string& version, const std::string& cuda);

  void OnStateChanged(const ModelInfo& model) override;
  void OnRead(int64_t bytes) override;
  void OnLoadFinished(const ModelInfo& model, const absl::Status& status) override;
  void OnRefused(absl::string_view reason) override;
  void OnDeviceBroken(const absl::Status& health) override;
  void OnCache(const CacheEvent& event) override;
  void OnInterTokenLatency(absl::string_view model, absl::Duration latency) override {
    requests_.ObserveTokenLatency(model, latency);
  }
  void OnRequestDone(absl::string_view model, const RequestTimes& times,
                     const absl::Status&) override {
    requests_.ObserveRequest(model, times);
  }

  // All metrics in Prometheus' text format, version 0.0.4.
  std::string Render(const StateSnapshot& snapshot, const MemorySample& sample,
                     const std::vector<Listener::ProtocolCounts>& connections,
                     const EngineList& engines = {}) const;

 private:
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Histogram>& load_duration_;
  prometheus::Family<prometheus::Counter>& loads_;
  prometheus::Family<prometheus::Counter>& quantized_elements_;
  prometheus::Family<prometheus::Counter>& refusals_;
  prometheus::Counter& read_bytes_;
  prometheus::Counter& cache_hits_;
  prometheus::Counter& cache_misses_;
  prometheus::Counter& cache_written_bytes_;
  prometheus::Counter& cache_evictions_;
  prometheus::Family<prometheus::Counter>& cache_fallbacks_;
  prometheus::Family<prometheus::Counter>& cache_write_failures_;
  prometheus::Gauge& cache_entries_;
  prometheus::Gauge& cache_entries_bytes_;
  RequestHistograms requests_;

  Mutex mutex_;
  std::unordered_map<std::string, absl::Time> load_starts_ ABSL_GUARDED_BY(mutex_);  // By model.
};

}  // namespace nibble
