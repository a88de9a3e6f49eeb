// What Prometheus sees of requests for text: histograms of how long they take, and what the engines
// do at the moment. A model's series vanish when it is unloaded.

#pragma once

#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "server/engine/engine.h"

namespace nibble {

// Thread-safe.
class RequestHistograms {
 public:
  explicit RequestHistograms(prometheus::Registry& registry);

  void ObserveTokenLatency(absl::string_view model, absl::Duration latency);
  void ObserveRequest(absl::string_view model, const RequestTimes& times);
  void Forget(absl::string_view model);

 private:
  struct OfModel {
    prometheus::Histogram* first_token;
    prometheus::Histogram* inter_token;
    prometheus::Histogram* duration;
  };

  const OfModel& Find(absl::string_view model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  prometheus::Family<prometheus::Histogram>& first_token_;
  prometheus::Family<prometheus::Histogram>& inter_token_;
  prometheus::Family<prometheus::Histogram>& duration_;
  Mutex mutex_;
  std::map<std::string, OfModel, std::less<>> models_ ABSL_GUARDED_BY(mutex_);
};

using EngineList = std::vector<std::pair<std::string, EngineStats>>;

// Adds the gauges and counters of the engines to `families`.
void AddEngines(const EngineList& engines, std::vector<prometheus::MetricFamily>& families);

}  // namespace nibble
