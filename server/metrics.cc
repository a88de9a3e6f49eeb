#include "server/metrics.h"

#include <prometheus/text_serializer.h>

#include <utility>

#include "kernels/error_details.h"
#include "loader/tile_checksums.h"
#include "server/snapshot_metrics.h"

namespace nibble {
namespace {

// From a model of a few megabytes to 67 GB from a slow disk.
const prometheus::Histogram::BucketBoundaries& LoadSeconds() {
  static const prometheus::Histogram::BucketBoundaries* const buckets =
      new prometheus::Histogram::BucketBoundaries{0.1, 0.25, 0.5, 1,   2.5, 5,   10,
                                                  25,  50,   100, 250, 500, 1000};
  return *buckets;
}

prometheus::Family<prometheus::Counter>& CounterFamily(prometheus::Registry& registry,
                                                       const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Gauge& GaugeFamily(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

// Why something was not to be had, in one word.
std::string ReasonOf(const absl::Status& why) {
  const std::string reason = DetailsOf(why).reason;
  return reason.empty() ? absl::StatusCodeToString(why.code()) : reason;
}

prometheus::MetricFamily ConnectionFamily(const char* name, const char* help,
                                          prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void AddConnections(const std::vector<Listener::ProtocolCounts>& connections,
                    std::vector<prometheus::MetricFamily>& families) {
  if (connections.empty()) {
    return;
  }
  prometheus::MetricFamily open = ConnectionFamily(
      "nibble_connections", "Open connections, by protocol", prometheus::MetricType::Gauge);
  prometheus::MetricFamily refused = ConnectionFamily(
      "nibble_connections_refused_total", "Connections closed at once because of the limit",
      prometheus::MetricType::Counter);
  for (const Listener::ProtocolCounts& counts : connections) {
    prometheus::ClientMetric metric;
    metric.label = {{"protocol", counts.protocol}};
    metric.gauge.value = static_cast<double>(counts.open);
    metric.counter.value = static_cast<double>(counts.refused);
    open.metric.push_back(metric);
    refused.metric.push_back(metric);
  }
  families.push_back(std::move(open));
  families.push_back(std::move(refused));
}

}  // namespace

Metrics::Metrics(const std::string& version, const std::string& cuda)
    : load_duration_(prometheus::BuildHistogram()
                         .Name("nibble_load_duration_seconds")
                         .Help("How long loads took from the start of LOADING, by outcome")
                         .Register(registry_)),
      loads_(CounterFamily(registry_, "nibble_loads_total", "Loads that ended, by outcome")),
      quantized_elements_(CounterFamily(registry_, "nibble_quantized_elements_total",
                                        "Elements quantized by loads that succeeded")),
      refusals_(CounterFamily(registry_, "nibble_budget_refusals_total",
                              "Loads refused because a limit was reached, by reason")),
      read_bytes_(CounterFamily(registry_, "nibble_checkpoint_read_bytes_total",
                                "Tensor data read from checkpoints")
                      .Add({})),
      cache_hits_(CounterFamily(registry_, "nibble_cache_hits_total",
                                "Loads from an entry of the quantized cache")
                      .Add({})),
      cache_misses_(CounterFamily(registry_, "nibble_cache_misses_total",
                                  "Loads from the source because the cache had no entry")
                        .Add({})),
      cache_written_bytes_(CounterFamily(registry_, "nibble_cache_written_bytes_total",
                                         "Bytes of the cache entries written by this daemon")
                               .Add({})),
      cache_evictions_(CounterFamily(registry_, "nibble_cache_evictions_total",
                                     "Cache entries removed to make room")
                           .Add({})),
      cache_fallbacks_(CounterFamily(registry_, "nibble_cache_fallbacks_total",
                                     "Loads from the source because the cache's entry could not "
                                     "be used, by reason")),
      cache_write_failures_(CounterFamily(registry_, "nibble_cache_write_failures_total",
                                          "Cache entries that were not written, by reason")),
      cache_entries_(GaugeFamily(registry_, "nibble_cache_entries",
                                 "Cache entries when this daemon last looked")),
      cache_entries_bytes_(GaugeFamily(registry_, "nibble_cache_entries_bytes",
                                       "Bytes of the cache's entries when this daemon last "
                                       "looked")),
      requests_(registry_) {
  // Series that are there from the start let an alert see the first increase.
  loads_.Add({{"code", "OK"}});
  refusals_.Add({{"reason", "BUDGET_EXCEEDED"}});
  refusals_.Add({{"reason", "DEVICE_MEMORY_TAKEN"}});
  refusals_.Add({{"reason", "RUNTIME_RESERVE_EXCEEDED"}});
  cache_fallbacks_.Add({{"reason", std::string(kCacheChecksum)}});
  cache_write_failures_.Add({{"reason", "DISK_FULL"}});
  CounterFamily(registry_, "nibble_evictions_total", "Models unloaded to make room, by reason")
      .Add({{"reason", "idle"}});
  prometheus::BuildGauge()
      .Name("nibble_build_info")
      .Help("1; the labels say what runs")
      .Register(registry_)
      .Add({{"version", version}, {"cuda", cuda}})
      .Set(1);
}

void Metrics::OnStateChanged(const ModelInfo& model) {
  if (model.state == ModelState::kLoading) {
    MutexLock lock(mutex_);
    load_starts_[model.name] = absl::Now();
  } else if (model.state == ModelState::kUnloaded) {
    requests_.Forget(model.name);
  }
}

void Metrics::OnRead(int64_t bytes) { read_bytes_.Increment(static_cast<double>(bytes)); }

void Metrics::OnLoadFinished(const ModelInfo& model, const absl::Status& status) {
  absl::Duration duration = model.load_duration;
  {
    MutexLock lock(mutex_);
    if (const auto start = load_starts_.find(model.name); start != load_starts_.end()) {
      if (duration == absl::ZeroDuration()) {  // Only a loaded model knows.
        duration = absl::Now() - start->second;
      }
      load_starts_.erase(start);
    }
  }
  const prometheus::Labels code = {{"code", absl::StatusCodeToString(status.code())}};
  loads_.Add(code).Increment();
  load_duration_.Add(code, LoadSeconds()).Observe(absl::ToDoubleSeconds(duration));
  const bool quantized = status.ok() && !model.from_cache && model.plan != nullptr;
  if (quantized && model.plan->quantized_elements > 0) {
    quantized_elements_.Add({{"format", FormatName(model.quantization.format)}})
        .Increment(static_cast<double>(model.plan->quantized_elements));
  }
}

void Metrics::OnRefused(absl::string_view reason) {
  refusals_.Add({{"reason", std::string(reason)}}).Increment();
}

void Metrics::OnDeviceBroken(const absl::Status&) {}

void Metrics::OnCache(const CacheEvent& event) {
  switch (event.kind) {
    case CacheEvent::Kind::kOff:
    case CacheEvent::Kind::kReadOnly:
      return;
    case CacheEvent::Kind::kHit:
      cache_hits_.Increment();
      return;
    case CacheEvent::Kind::kMiss:
      cache_misses_.Increment();
      return;
    case CacheEvent::Kind::kFallback:
      cache_fallbacks_.Add({{"reason", ReasonOf(event.why)}}).Increment();
      return;
    case CacheEvent::Kind::kNotWritten:
      cache_write_failures_.Add({{"reason", ReasonOf(event.why)}}).Increment();
      break;
    case CacheEvent::Kind::kWritten:
      cache_written_bytes_.Increment(static_cast<double>(event.written_bytes));
      break;
    case CacheEvent::Kind::kOpened:
      break;
  }
  cache_evictions_.Increment(static_cast<double>(event.evicted_count));
  cache_entries_.Set(static_cast<double>(event.usage.entry_count));
  cache_entries_bytes_.Set(static_cast<double>(event.usage.bytes));
}

std::string Metrics::Render(const StateSnapshot& snapshot, const MemorySample& sample,
                            const std::vector<Listener::ProtocolCounts>& connections,
                            const EngineList& engines) const {
  std::vector<prometheus::MetricFamily> families = SnapshotMetrics(snapshot, sample);
  for (prometheus::MetricFamily& family : registry_.Collect()) {
    if (!family.metric.empty()) {
      families.push_back(std::move(family));
    }
  }
  AddConnections(connections, families);
  AddEngines(engines, families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace nibble
