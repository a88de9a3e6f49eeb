// Answers as they go out: plans, models and the ledger in the messages of the wire contract.

#pragma once

#include <nibble/v1/memory.pb.h>
#include <nibble/v1/model.pb.h>

#include "absl/strings/string_view.h"
#include "loader/checkpoint_writer.h"
#include "loader/load_plan.h"
#include "loader/quantizing_loader.h"
#include "server/model_registry.h"
#include "server/system_memory.h"

namespace nibble {

// Whether a plan's message lists every tensor: 18 500 of them, about 3 MB, for a large model of
// experts. Streams and lists leave them out; a client's default limit for one message is 4 MiB.
enum class PlanDetail { kTotals, kTensors };

// As requests and answers carry them.
v1::Quantization QuantizationMessage(const QuantizationSpec& spec);
v1::Serving ServingMessage(const ServingSpec& spec);

// The plan as it stands against the budget.
v1::Plan PlanMessage(const PlanAnswer& answer, PlanDetail detail);

v1::LoadProgress ProgressMessage(const LoadProgress& progress);

// Without progress, which is no part of a snapshot.
v1::Model ModelMessage(const ModelInfo& info, absl::string_view device);

// What became of each tensor. Empty while there is no plan.
v1::LoadReport ReportMessage(const ModelInfo& info);

v1::ExportSummary ExportMessage(const ExportSummary& summary, absl::string_view directory);

v1::GetMemoryResponse MemoryMessage(const StateSnapshot& snapshot, const MemorySample& sample);

}  // namespace nibble
