#include "server/snapshot_metrics.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace nibble {
namespace {

using Label = prometheus::ClientMetric::Label;

// A family of gauges under construction.
class Gauges {
 public:
  Gauges(const char* name, const char* help) {
    family_.name = name;
    family_.help = help;
    family_.type = prometheus::MetricType::Gauge;
  }

  void Add(std::vector<Label> labels, double value) {
    prometheus::ClientMetric metric;
    metric.label = std::move(labels);
    metric.gauge.value = value;
    family_.metric.push_back(std::move(metric));
  }

  // Bytes are exact: a double holds every integer up to 2^53.
  void Add(std::vector<Label> labels, int64_t value) {
    Add(std::move(labels), static_cast<double>(value));
  }

  void MoveTo(std::vector<prometheus::MetricFamily>& families) && {
    if (!family_.metric.empty()) {
      families.push_back(std::move(family_));
    }
  }

 private:
  prometheus::MetricFamily family_;
};

void AddDevice(const LedgerSnapshot& ledger, const std::string& device,
               std::vector<prometheus::MetricFamily>& families) {
  const Label label{"device", device};
  Gauges budget("nibble_vram_budget_bytes", "The limit on device memory");
  budget.Add({label}, ledger.limit_bytes);
  std::move(budget).MoveTo(families);
  Gauges peak("nibble_vram_peak_bytes", "The most device memory allocated at once since start");
  peak.Add({label}, ledger.allocated_peak_bytes);
  std::move(peak).MoveTo(families);
  Gauges sequence("nibble_ledger_sequence",
                  "Number of the ledger's state; equal numbers mean equal figures");
  sequence.Add({label}, static_cast<double>(ledger.sequence));
  std::move(sequence).MoveTo(families);
  Gauges reserved("nibble_vram_reserved_bytes", "Device memory promised, by purpose");
  Gauges allocated("nibble_vram_allocated_bytes",
                   "Device memory taken from the device, by purpose");
  for (const Purpose purpose : kPurposes) {
    const std::vector<Label> labels = {label, {"purpose", std::string(PurposeName(purpose))}};
    reserved.Add(labels, ledger.reserved[purpose]);
    allocated.Add(labels, ledger.allocated[purpose]);
  }
  std::move(reserved).MoveTo(families);
  std::move(allocated).MoveTo(families);
}

void AddSample(const LedgerSnapshot& ledger, const MemorySample& sample,
               std::vector<prometheus::MetricFamily>& families) {
  const Label label{"device", sample.device};
  Gauges total("nibble_device_memory_total_bytes", "Device memory in all, as the device says");
  total.Add({label}, sample.memory.total_bytes);
  std::move(total).MoveTo(families);
  Gauges free("nibble_device_memory_free_bytes", "Free device memory, as the device says");
  free.Add({label}, sample.memory.free_bytes);
  std::move(free).MoveTo(families);
  Gauges runtime("nibble_runtime_measured_bytes",
                 "Memory of this process on the device beyond what the ledger counts as allocated; "
                 "absent where the device cannot tell");
  if (sample.memory.process_bytes.has_value()) {
    // Pages of the host device that were allocated but never written are not the process's yet.
    runtime.Add({label},
                std::max<int64_t>(*sample.memory.process_bytes - ledger.allocated.total(), 0));
  }
  std::move(runtime).MoveTo(families);
  Gauges host("nibble_host_memory_bytes",
              "Host memory of this process: resident, and page-locked for transfers");
  host.Add({{"kind", "rss"}}, sample.rss_bytes);
  host.Add({{"kind", "pinned"}}, sample.pinned_bytes);
  std::move(host).MoveTo(families);
}

void AddModelMemory(const LedgerSnapshot& ledger, const std::string& device,
                    std::vector<prometheus::MetricFamily>& families) {
  Gauges memory("nibble_model_vram_bytes", "Device memory reserved for a model, by purpose");
  for (const LedgerSnapshot::Owner& owner : ledger.owners) {
    if (!IsModel(owner)) {
      continue;
    }
    for (const Purpose purpose : kPurposes) {
      if (purpose != Purpose::kRuntime) {
        memory.Add({{"model", owner.name},
                    {"device", device},
                    {"purpose", std::string(PurposeName(purpose))}},
                   owner.reserved[purpose]);
      }
    }
  }
  std::move(memory).MoveTo(families);
}

void AddModels(const std::vector<ModelInfo>& models,
               std::vector<prometheus::MetricFamily>& families) {
  Gauges peak("nibble_model_load_peak_bytes",
              "The most device memory a model's load had allocated at once, measured");
  Gauges error("nibble_model_plan_error_bytes", "Measured peak of a model's load less the planned");
  Gauges ratio("nibble_model_quantized_ratio", "Elements in 4 bits of those loaded");
  std::array<int64_t, kModelStateCount> counts = {};
  for (const ModelInfo& model : models) {
    ++counts[static_cast<size_t>(model.state)];
    const bool loaded = model.state == ModelState::kReady || model.state == ModelState::kDraining;
    if (!loaded || model.plan == nullptr) {
      continue;
    }
    const std::vector<Label> labels = {{"model", model.name}};
    peak.Add(labels, model.peak_bytes);
    error.Add(labels, model.peak_bytes - model.plan->peak_bytes());
    ratio.Add(labels, model.plan->quantized_ratio());
  }
  std::move(peak).MoveTo(families);
  std::move(error).MoveTo(families);
  std::move(ratio).MoveTo(families);
  Gauges states("nibble_models", "Models by state");
  for (int index = 0; index < kModelStateCount; ++index) {
    const std::string state(ModelStateName(static_cast<ModelState>(index)));
    states.Add({{"state", state}}, counts[static_cast<size_t>(index)]);
  }
  std::move(states).MoveTo(families);
}

}  // namespace

std::vector<prometheus::MetricFamily> SnapshotMetrics(const StateSnapshot& snapshot,
                                                      const MemorySample& sample) {
  std::vector<prometheus::MetricFamily> families;
  AddDevice(snapshot.ledger, sample.device, families);
  AddSample(snapshot.ledger, sample, families);
  AddModelMemory(snapshot.ledger, sample.device, families);
  AddModels(snapshot.models, families);
  return families;
}

}  // namespace nibble
