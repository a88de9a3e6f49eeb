// The gauges that render a snapshot of ledger and registry, and what the system said beside it: a
// pure function, so that /metrics says what GetMemory says.

#pragma once

#include <prometheus/metric_family.h>

#include <vector>

#include "server/model_registry.h"
#include "server/system_memory.h"

namespace nibble {

// Families without a sample are left out, so a model's series vanish with it.
std::vector<prometheus::MetricFamily> SnapshotMetrics(const StateSnapshot& snapshot,
                                                      const MemorySample& sample);

}  // namespace nibble
