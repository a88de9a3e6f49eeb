// What a load will do, to the byte, before it does anything: a pure function of headers, options
// and the device's traits.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "loader/checkpoint.h"
#include "loader/load_spec.h"
#include "loader/vram_budget.h"
#include "loader/weight_names.h"

namespace nibble {

inline constexpr int64_t kStagingBytesDefault = 128_MiB;
inline constexpr int64_t kStagingBytesMin = 1_MiB;  // A slot of every reader, and then some.

// A run of source elements that is quantized as a tensor of its own: the whole tensor, one expert
// of a fused one, or one half (gate, up) of one expert. Offsets are from the start of the tensor's
// data and of the slab.
struct PlannedPart {
  int64_t source_offset = 0;
  int64_t element_count = 0;
  int64_t data_offset = 0;    // Codes, or the elements themselves if kept. 256-byte aligned.
  int64_t scales_offset = 0;  // fp32; unused if kept. 256-byte aligned.
};

struct PlannedTensor {
  std::string name;
  WeightName weight;
  bool loaded = true;  // false: skipped, for `reason`.
  Format format = Format::kAsStored;
  WeightLayout layout = WeightLayout::kPlain;
  std::string reason;  // Why it is kept or skipped; empty if quantized.
  int shard_index = 0;
  int64_t file_offset = 0;
  Dtype source_dtype = Dtype::kBf16;
  std::vector<int64_t> shape;
  int64_t source_bytes = 0;
  int64_t device_bytes = 0;        // Codes and scales, or the elements; padding not counted.
  std::vector<PlannedPart> parts;  // Empty if skipped.
};

struct LoadPlan {
  QuantizationSpec quantization;
  ServingSpec serving;
  DeviceTraits traits = kHostTraits;
  std::vector<PlannedTensor> tensors;  // In the order of their place in the shards.
  std::vector<std::string> warnings;

  int64_t source_bytes = 0;     // Tensor data that will be read.
  int64_t weights_bytes = 0;    // The slab. These four are rounded up to the granularity, each.
  int64_t kv_cache_bytes = 0;   // 0 until there is an engine.
  int64_t workspace_bytes = 0;  // 0 until there is an engine.
  int64_t staging_bytes = 0;
  int64_t loaded_elements = 0;
  int64_t quantized_elements = 0;

  int64_t resident_bytes() const { return weights_bytes + kv_cache_bytes + workspace_bytes; }
  int64_t peak_bytes() const { return resident_bytes() + staging_bytes; }
  double quantized_ratio() const;

  // What a load reserves.
  PurposeBytes peak() const;

  // Bytes of a part's codes (or kept elements), and of its scales (0 if kept).
  int64_t data_bytes(const PlannedTensor& tensor, const PlannedPart& part) const;
  int64_t scales_bytes(const PlannedTensor& tensor, const PlannedPart& part) const;
};

// Errors: INVALID_ARGUMENT for bad options (the field is named; a glob that matches no tensor is
//   one); UNIMPLEMENTED for what this version cannot load; DATA_LOSS if a tensor's shape is not
//   what the config says; FAILED_PRECONDITION if quantized_ratio is below min_quantized_ratio.
absl::StatusOr<LoadPlan> MakeLoadPlan(const Checkpoint& checkpoint,
                                      const QuantizationSpec& quantization,
                                      const ServingSpec& serving, const DeviceTraits& traits,
                                      int64_t staging_bytes);

// What would make `plan` fit into `available_bytes`, the simplest first; each is checked by
// arithmetic, none is a guess. Empty if it fits.
//
// Requires: `limit_bytes`, the budget less the runtime reservation, is what would be available if
//   no other model were loaded.
std::vector<std::string> Remedies(const LoadPlan& plan, int64_t limit_bytes,
                                  int64_t available_bytes);

}  // namespace nibble
