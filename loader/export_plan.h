// What an export will write, before it writes: which tensors into which shards, and what whoever
// asks should know.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loader/export_names.h"
#include "loader/load_plan.h"
#include "loader/model_config.h"

namespace nibble {

// Where shards end. The second bounds the host memory that an export takes: a header and what it is
// made of stay below 8 MiB, however many experts a model has.
struct ShardLimits {
  int64_t data_bytes_max =
      5'000'000'000;  // As transformers 4 cuts them. A larger tensor has its own.
  int64_t header_bytes_max = 2 << 20;
};

struct ExportShard {
  std::string file_name;
  size_t first_unit = 0;
  size_t unit_count = 0;
};

// Points into the LoadPlan that it was made from.
struct ExportPlan {
  std::vector<ExportUnit> units;  // In the order of the plan.
  std::vector<ExportShard> shards;
  std::string config_json;
  int64_t plane_bytes = 0;     // That come from the device: what progress counts.
  int64_t disk_bytes_max = 0;  // Amply.
  std::vector<std::string> warnings;
};

// Errors: FAILED_PRECONDITION if nothing is in 4 bits; UNIMPLEMENTED for what no reader would
//   understand: a tensor of 2^31 elements, the text model of an unknown vision-language model,
//   fused experts of an unknown family; DATA_LOSS if two tensors would have one name. All name the
//   tensor or the architecture.
absl::StatusOr<ExportPlan> MakeExportPlan(const LoadPlan& plan, const ModelConfig& config,
                                          absl::string_view config_json,
                                          const ShardLimits& limits = {});

}  // namespace nibble
