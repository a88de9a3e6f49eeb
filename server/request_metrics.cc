#include "server/request_metrics.h"

#include <functional>

namespace nibble {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// From a warm GPU to a long prompt on a few cores.
const Buckets& Seconds() {
  static const Buckets* const buckets =
      new Buckets{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100};
  return *buckets;
}

// From a thousand tokens a second to one.
const Buckets& TokenSeconds() {
  static const Buckets* const buckets =
      new Buckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1};
  return *buckets;
}

prometheus::Family<prometheus::Histogram>& Register(prometheus::Registry& registry,
                                                    const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

double UsedShare(const EngineStats& stats) {
  return stats.page_count == 0
             ? 0
             : static_cast<double>(stats.pages_used) / static_cast<double>(stats.page_count);
}

}  // namespace

RequestHistograms::RequestHistograms(prometheus::Registry& registry)
    : first_token_(Register(registry, "nibble_time_to_first_token_seconds",
                            "From a request to its first token")),
      inter_token_(Register(registry, "nibble_inter_token_latency_seconds",
                            "Between two tokens of an answer")),
      duration_(Register(registry, "nibble_request_duration_seconds",
                         "From a request to the end of its answer")) {}

const RequestHistograms::OfModel& RequestHistograms::Find(absl::string_view model) {
  const auto found = models_.find(model);
  if (found != models_.end()) {
    return found->second;
  }
  const prometheus::Labels labels = {{"model", std::string(model)}};
  return models_
      .emplace(std::string(model), OfModel{&first_token_.Add(labels, Seconds()),
                                           &inter_token_.Add(labels, TokenSeconds()),
                                           &duration_.Add(labels, Seconds())})
      .first->second;
}

void RequestHistograms::ObserveTokenLatency(absl::string_view model, absl::Duration latency) {
  MutexLock lock(mutex_);
  Find(model).inter_token->Observe(absl::ToDoubleSeconds(latency));
}

void RequestHistograms::ObserveRequest(absl::string_view model, const RequestTimes& times) {
  MutexLock lock(mutex_);
  const OfModel& histograms = Find(model);
  if (times.to_first_token != absl::InfiniteDuration()) {
    histograms.first_token->Observe(absl::ToDoubleSeconds(times.to_first_token));
  }
  histograms.duration->Observe(absl::ToDoubleSeconds(times.total));
}

void RequestHistograms::Forget(absl::string_view model) {
  MutexLock lock(mutex_);
  const auto found = models_.find(model);
  if (found == models_.end()) {
    return;
  }
  first_token_.Remove(found->second.first_token);
  inter_token_.Remove(found->second.inter_token);
  duration_.Remove(found->second.duration);
  models_.erase(found);
}

void AddEngines(const EngineList& engines, std::vector<prometheus::MetricFamily>& families) {
  if (engines.empty()) {
    return;
  }
  const struct {
    const char* name;
    const char* help;
    prometheus::MetricType type;
    std::function<double(const EngineStats&)> value;
  } metrics[] = {
      {"nibble_requests_running", "Sequences that are computed, by model",
       prometheus::MetricType::Gauge,
       [](const EngineStats& stats) { return static_cast<double>(stats.running); }},
      {"nibble_requests_waiting", "Sequences that wait for pages or their turn, by model",
       prometheus::MetricType::Gauge,
       [](const EngineStats& stats) { return static_cast<double>(stats.waiting); }},
      {"nibble_kv_cache_usage_ratio", "Share of the KV cache that sequences hold, by model",
       prometheus::MetricType::Gauge, UsedShare},
      {"nibble_prompt_tokens_total", "Tokens of prompts that were computed, by model",
       prometheus::MetricType::Counter,
       [](const EngineStats& stats) { return static_cast<double>(stats.prompt_tokens); }},
      {"nibble_prompt_tokens_reused_total",
       "Tokens of prompts that were in the KV cache already, by model",
       prometheus::MetricType::Counter,
       [](const EngineStats& stats) { return static_cast<double>(stats.reused_tokens); }},
      {"nibble_generated_tokens_total", "Tokens of answers, by model",
       prometheus::MetricType::Counter,
       [](const EngineStats& stats) { return static_cast<double>(stats.generated_tokens); }},
      {"nibble_preemptions_total", "Sequences that had to begin anew for want of pages, by model",
       prometheus::MetricType::Counter,
       [](const EngineStats& stats) { return static_cast<double>(stats.preemptions); }},
  };
  for (const auto& metric : metrics) {
    prometheus::MetricFamily family;
    family.name = metric.name;
    family.help = metric.help;
    family.type = metric.type;
    for (const auto& [model, stats] : engines) {
      prometheus::ClientMetric sample;
      sample.label = {{"model", model}};
      sample.gauge.value = sample.counter.value = metric.value(stats);
      family.metric.push_back(std::move(sample));
    }
    families.push_back(std::move(family));
  }
}

}  // namespace nibble
