// What a load will do, to the byte, before it does anything: a pure function of headers, options
// and the device's traits.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "loader/checkpoint.h"
#include "loader/load_spec.h"
#include "loader/vram_budget.h"
#include "loader/weight_names.h"

namespace nibble {

inline constexpr int64_t kStagingBytesDefault = 128_MiB;
inline constexpr int64_t kStagingBytesMin = 1_MiB;  // A slot of every reader, and then some.

// The planes of a part in device memory. Each is contiguous, in the file and in the slab.
enum class Plane {
  kData,         // Codes, or the elements themselves if kept.
  kScales,       // Of each block: fp32, or a byte if double-quantized.
  kScaleMaxima,  // Of each 256 scales, if double-quantized: fp32.
};
inline constexpr int kPlaneCount = 3;
inline constexpr std::array<Plane, kPlaneCount> kPlanes = {Plane::kData, Plane::kScales,
                                                           Plane::kScaleMaxima};

// Where a plane lies. In the file there is only kData, unless the tensor is in 4 bits there.
struct PlanePlace {
  int64_t file_offset = 0;  // From the start of the shard.
  int64_t slab_offset = 0;  // 256-byte aligned.
  int shard_index = -1;     // -1: there is none in the files.
};

// A run of source elements that is quantized as a tensor of its own: the whole tensor, one expert
// of a fused one, or one half (gate, up) of one expert.
struct PlannedPart {
  int64_t element_count = 0;
  std::array<PlanePlace, kPlaneCount> planes;
  int64_t scale_mean_offset = 0;  // In the slab: fp32 [1], if double-quantized.
  float scale_mean = 0;           // Its value, if the file says it.

  PlanePlace& operator[](Plane plane) { return planes[static_cast<size_t>(plane)]; }
  const PlanePlace& operator[](Plane plane) const { return planes[static_cast<size_t>(plane)]; }
};

// What the files hold of a tensor.
enum class SourceForm {
  kElements,  // F32, F16 or BF16.
  kF8,        // F8 elements, to be multiplied by their scales.
  kFourBit,   // Codes and scales: loaded as they are.
};

struct PlannedTensor {
  std::string name;
  WeightName weight;
  bool loaded = true;  // false: skipped, for `reason`.
  Format format = Format::kAsStored;
  int64_t block_size = kBlockSizeDefault;  // Of what is quantized.
  bool double_quantized = false;
  WeightLayout layout = WeightLayout::kPlain;
  std::string reason;  // Why it is kept or skipped; empty if quantized.
  SourceForm form = SourceForm::kElements;
  Dtype source_dtype = Dtype::kBf16;  // Of the elements; of kFourBit, what they were made from.
  std::vector<int64_t> shape;
  int shard_index = 0;
  int64_t file_offset = 0;
  int64_t source_bytes = 0;               // Elements, or codes and scales; not F8's scales.
  int64_t device_bytes = 0;               // All planes and the scales' mean; padding not counted.
  int scale_map_index = 0;                // Of LoadPlan::scale_maps, if double-quantized.
  std::optional<StoredF8Scale> f8_scale;  // Of kF8.
  std::vector<PlannedPart> parts;         // Empty if skipped.

  bool quantized() const { return format != Format::kAsStored; }
};

// The type of a tensor's elements as they are quantized, or kept: F8 is multiplied out to F32.
//
// Requires: the tensor is loaded, and not kFourBit.
FloatType ElementType(const PlannedTensor& tensor);

// Bytes of a plane on the device, and of one of its numbers (of two codes).
int64_t PlaneBytes(const PlannedTensor& tensor, const PlannedPart& part, Plane plane);
int64_t PlaneUnitBytes(const PlannedTensor& tensor, Plane plane);

struct LoadPlan {
  QuantizationSpec quantization;
  ServingSpec serving;
  DeviceTraits traits = kHostTraits;
  std::vector<PlannedTensor> tensors;  // In the order of their place in the shards.
  std::vector<std::string> warnings;
  bool partly_quantized = false;  // Tensors of the checkpoint are in 4 bits already.

  int64_t source_bytes = 0;     // Tensor data that will be read.
  int64_t weights_bytes = 0;    // The slab. These four are rounded up to the granularity, each.
  int64_t kv_cache_bytes = 0;   // 0 if nothing but the weights is wanted: whoever serves them
  int64_t workspace_bytes = 0;  // sets these two (server/engine/serving_plan.h).
  int64_t staging_bytes = 0;    // scale_scratch_bytes included.
  int64_t loaded_elements = 0;
  int64_t quantized_elements = 0;

  // staging = configured + scratch, rounded up. In the scratch the fp32 scales of double-quantized
  // parts wait until theirs is complete and has a mean; there is room for two of the largest.
  int64_t configured_staging_bytes = 0;
  int64_t scale_scratch_bytes = 0;
  std::vector<ScaleMap> scale_maps;  // What their codes stand for.
  int64_t scale_maps_offset = 0;     // In the slab, one after the other.

  int64_t resident_bytes() const { return weights_bytes + kv_cache_bytes + workspace_bytes; }
  int64_t peak_bytes() const { return resident_bytes() + staging_bytes; }
  double quantized_ratio() const;

  // What a load reserves.
  PurposeBytes peak() const;
};

inline bool NeverCancelled() { return false; }

// Asks `cancelled` at every tensor: a hundred thousand names and as many globs as are allowed take
// seconds.
//
// Errors: CANCELLED; INVALID_ARGUMENT for bad options (the field is named; a glob that matches no
// tensor is
//   one); UNIMPLEMENTED for what this version cannot load; DATA_LOSS if a tensor's shape is not
//   what the config says; FAILED_PRECONDITION if quantized_ratio is below min_quantized_ratio.
absl::StatusOr<LoadPlan> MakeLoadPlan(const Checkpoint& checkpoint,
                                      const QuantizationSpec& quantization,
                                      const ServingSpec& serving, const DeviceTraits& traits,
                                      int64_t staging_bytes,
                                      absl::FunctionRef<bool()> cancelled = NeverCancelled);

// What would make `plan` fit into `available_bytes`, the simplest first; each is checked by
// arithmetic, none is a guess. Empty if it fits. Takes as long as several plans; once `cancelled`,
// fewer come of it.
//
// Requires: `limit_bytes`, the budget less the runtime reservation, is what would be available if
//   no other model were loaded.
std::vector<std::string> Remedies(const LoadPlan& plan, int64_t limit_bytes,
                                  int64_t available_bytes,
                                  absl::FunctionRef<bool()> cancelled = NeverCancelled);

}  // namespace nibble
