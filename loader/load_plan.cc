#include "loader/load_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/error_details.h"
#include "kernels/scale_format.h"
#include "loader/f8_tile.h"
#include "loader/missing_weights.h"
#include "loader/quantization_policy.h"
#include "loader/slab_layout.h"
#include "loader/tile_list.h"

namespace nibble {
namespace {

// No machine has as much memory. It bounds the sums of a plan: shards may be sparse files of up to
// 2^63 bytes each, and a hostile header costs nothing to write.
constexpr int64_t kSourceBytesMax = int64_t{1} << 60;

// A staging ring larger than this is a mistyped unit.
constexpr int64_t kStagingBytesMax = 64_GiB;

// Bounds what a plan takes in host memory (about 100 MiB of parts): an empty fused tensor could
// declare 2^62 experts. The largest model we know of (512 experts, 48 layers) has 74 000 parts.
constexpr int64_t kPartCountMax = int64_t{1} << 20;

absl::Status CheckOptions(const QuantizationSpec& quantization, const ServingSpec& serving,
                          int64_t staging_bytes) {
  absl::Status status = Validate(quantization);
  status.Update(Validate(serving));
  if (!status.ok()) {
    return status;
  }
  if (staging_bytes < kStagingBytesMin || staging_bytes > kStagingBytesMax) {
    return BadField("staging_bytes", absl::StrCat("expected ", kStagingBytesMin, " to ",
                                                  kStagingBytesMax, ", found ", staging_bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckShape(const ModelConfig& config, const PlannedTensor& tensor) {
  const std::vector<int64_t> expected = ExpectedShape(config, tensor.weight);
  if (!expected.empty() && expected != tensor.shape) {
    return absl::DataLossError(
        absl::StrCat(tensor.name, ": expected [", absl::StrJoin(expected, ", "),
                     "] from config.json, found [", absl::StrJoin(tensor.shape, ", "), "]"));
  }
  return absl::OkStatus();
}

PlannedTensor Describe(const CheckpointTensor& source, const ModelFamily* family) {
  PlannedTensor tensor;
  tensor.name = source.name;
  tensor.weight = ClassifyWeight(family, source.name, source.shape);
  tensor.shard_index = source.shard_index;
  tensor.file_offset = source.file_offset;
  tensor.source_dtype = source.dtype;
  tensor.shape = source.shape;
  tensor.source_bytes = source.bytes;
  if (source.quantization.has_value()) {
    const StoredQuantization& stored = *source.quantization;
    tensor.form = SourceForm::kFourBit;
    tensor.format = stored.codebook == Codebook::kFp4 ? Format::kFp4 : Format::kNf4;
    tensor.block_size = stored.block_size;
    tensor.double_quantized = stored.double_quantized;
    tensor.scale_map_index = stored.scale_map_index;
    tensor.source_bytes += stored.scales.bytes + stored.scale_maxima.bytes;
  } else if (source.f8_scale.has_value()) {
    tensor.form = SourceForm::kF8;
    tensor.f8_scale = source.f8_scale;
  }
  return tensor;
}

// The one part of a tensor that is in 4 bits in its file.
PlannedPart StoredPart(const CheckpointTensor& source) {
  const StoredQuantization& stored = *source.quantization;
  PlannedPart part;
  part.element_count = 1;
  for (const int64_t dimension : source.shape) {
    part.element_count *= dimension;
  }
  part[Plane::kData] = {.file_offset = source.file_offset, .shard_index = source.shard_index};
  part[Plane::kScales] = {.file_offset = stored.scales.offset,
                          .shard_index = stored.scales.shard_index};
  if (stored.double_quantized) {
    part[Plane::kScaleMaxima] = {.file_offset = stored.scale_maxima.offset,
                                 .shard_index = stored.scale_maxima.shard_index};
  }
  part.scale_mean = stored.scale_mean;
  return part;
}

// A tile of 8-bit floats has the scales of its rows beside it.
absl::Status CheckF8Rows(const PlannedTensor& tensor) {
  if (tensor.form == SourceForm::kF8 &&
      F8TileElements(tensor, TileList::kTileBytesMin) < tensor.block_size) {
    return absl::UnimplementedError(absl::StrCat(
        tensor.name, ": rows of [", absl::StrJoin(tensor.shape, ", "), "] with a scale for each ",
        tensor.f8_scale->block_columns, " elements are too long for a tile"));
  }
  return absl::OkStatus();
}

// Decides about a tensor and, if it is loaded, cuts it into parts. `part_count` counts those of
// all.
absl::Status PlanTensor(const Checkpoint& checkpoint, const CheckpointTensor& source,
                        TensorGlobs::Choice choice, LoadPlan& plan, int64_t& part_count) {
  PlannedTensor& tensor = plan.tensors.back();
  absl::Status status = DecideFormat(plan.quantization, choice, plan.partly_quantized, tensor);
  if (!status.ok() || !tensor.loaded) {
    return status;
  }
  status = CheckShape(checkpoint.config, tensor);
  status.Update(status.ok() ? CheckF8Rows(tensor) : absl::OkStatus());
  if (!status.ok()) {
    return status;
  }
  if (PartCount(tensor) > kPartCountMax - part_count) {
    return absl::UnimplementedError(
        absl::StrCat(tensor.name, ": more than ", kPartCountMax, " experts in all"));
  }
  if (tensor.source_bytes > kSourceBytesMax - plan.source_bytes) {
    return absl::UnimplementedError(
        absl::StrCat(tensor.name, ": more than ", kSourceBytesMax, " bytes of weights in all"));
  }
  tensor.parts =
      source.quantization.has_value() ? std::vector{StoredPart(source)} : CutParts(tensor);
  part_count += std::ssize(tensor.parts);
  plan.source_bytes += tensor.source_bytes;
  return absl::OkStatus();
}

absl::Status PlanTensors(const Checkpoint& checkpoint, absl::FunctionRef<bool()> cancelled,
                         LoadPlan& plan) {
  const ModelFamily* const family = FindFamily(checkpoint.config.model_type);
  TensorGlobs globs(plan.quantization);
  int64_t part_count = 0;
  plan.partly_quantized =
      std::any_of(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                  [](const CheckpointTensor& tensor) { return tensor.quantization.has_value(); });
  plan.tensors.reserve(checkpoint.tensors.size());
  for (const CheckpointTensor& source : checkpoint.tensors) {
    if (cancelled()) {
      return absl::CancelledError("the plan was cancelled");
    }
    plan.tensors.push_back(Describe(source, family));
    const absl::Status status =
        PlanTensor(checkpoint, source, globs.Match(source.name), plan, part_count);
    if (!status.ok()) {
      const Shard& shard = checkpoint.shards[static_cast<size_t>(source.shard_index)];
      return absl::Status(status.code(), absl::StrCat(shard.file_name, ": ", status.message()));
    }
  }
  return globs.CheckAllMatched();
}

void CountElements(LoadPlan& plan) {
  for (const PlannedTensor& tensor : plan.tensors) {
    for (const PlannedPart& part : tensor.parts) {
      plan.loaded_elements += part.element_count;
      plan.quantized_elements += tensor.quantized() ? part.element_count : 0;
    }
  }
}

// Of a checkpoint that is in 4 bits only in part: that the rest was quantized here (transformers 5
// leaves MoE experts in 16 bits).
void WarnOfQuantizedRest(LoadPlan& plan) {
  int64_t count = 0;
  const PlannedTensor* first = nullptr;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.loaded && tensor.quantized() && tensor.form != SourceForm::kFourBit) {
      first = count++ == 0 ? &tensor : first;
    }
  }
  if (plan.partly_quantized && count > 0) {
    plan.warnings.push_back(absl::StrCat(
        "the checkpoint is in 4 bits only in part: ", count, " tensors are in ",
        DtypeName(first->source_dtype), " and are quantized to ", FormatName(first->format),
        " here, the first is ", first->name, "; keep_unquantized_rest keeps them"));
  }
}

// Less than this share of the elements in their own type is not worth a line.
constexpr double kLargeShare = 0.01;

// Of what stays large though no rule of a family we know keeps it: embeddings and output heads are
// always there, these are surprises.
void WarnOfLargeRest(LoadPlan& plan) {
  int64_t count = 0;
  int64_t elements = 0;
  int64_t bytes = 0;
  const PlannedTensor* first = nullptr;
  for (const PlannedTensor& tensor : plan.tensors) {
    const bool surprising = tensor.weight.role == Role::kOther ||
                            (plan.partly_quantized && plan.quantization.keep_unquantized_rest);
    const bool table =
        tensor.weight.role == Role::kEmbedding || tensor.weight.role == Role::kOutputHead;
    if (!tensor.loaded || tensor.quantized() || !surprising || table) {
      continue;
    }
    first = count++ == 0 ? &tensor : first;
    bytes += tensor.device_bytes;
    for (const PlannedPart& part : tensor.parts) {
      elements += part.element_count;
    }
  }
  const double share = static_cast<double>(elements) / static_cast<double>(plan.loaded_elements);
  if (share >= kLargeShare && plan.quantization.format != Format::kAsStored) {
    plan.warnings.push_back(absl::StrFormat(
        "%d tensors of %d bytes, %.1f %% of the weights, stay in their own type, the first is %s "
        "(%s: %s); `quantize` can name them",
        count, bytes, 100 * share, first->name, DtypeName(first->source_dtype), first->reason));
  }
}

void AddWarnings(const Checkpoint& checkpoint, LoadPlan& plan) {
  plan.warnings = checkpoint.warnings;
  WarnOfQuantizedRest(plan);
  WarnOfLargeRest(plan);
  if (FindFamily(checkpoint.config.model_type) != nullptr) {
    WarnOfMissingWeights(checkpoint.config, plan);
    return;
  }
  const ModelConfig& config = checkpoint.config;
  plan.warnings.push_back(absl::StrCat(
      "architecture ", config.architecture.empty() ? config.model_type : config.architecture,
      " is not known: loaded by the generic rule (2-D weights of linear layers are "
      "quantized, the rest is kept)"));
  int64_t skipped = 0;
  const PlannedTensor* first = nullptr;
  for (const PlannedTensor& tensor : plan.tensors) {
    const Role role = tensor.weight.role;
    if (!tensor.loaded && (role == Role::kLinear || role == Role::kOther)) {
      first = skipped++ == 0 ? &tensor : first;
    }
  }
  if (skipped > 0) {
    plan.warnings.push_back(absl::StrCat(skipped, " integer tensors are not loaded, the first is ",
                                         first->name, " (", DtypeName(first->source_dtype), ")"));
  }
}

absl::Status CheckRatio(const LoadPlan& plan) {
  const double min = plan.quantization.min_quantized_ratio;
  if (plan.quantized_ratio() >= min) {
    return absl::OkStatus();
  }
  ErrorDetails details;
  details.reason = "QUANTIZED_RATIO_TOO_LOW";
  details.field = "quantization.min_quantized_ratio";
  return WithDetails(
      absl::FailedPreconditionError(absl::StrFormat(
          "quantized ratio: expected at least %.6g, found %.6g (%d of %d elements)", min,
          plan.quantized_ratio(), plan.quantized_elements, plan.loaded_elements)),
      details);
}

}  // namespace

double LoadPlan::quantized_ratio() const {
  return loaded_elements == 0
             ? 0
             : static_cast<double>(quantized_elements) / static_cast<double>(loaded_elements);
}

PurposeBytes LoadPlan::peak() const {
  PurposeBytes bytes;
  bytes[Purpose::kWeights] = weights_bytes;
  bytes[Purpose::kKvCache] = kv_cache_bytes;
  bytes[Purpose::kWorkspace] = workspace_bytes;
  bytes[Purpose::kStaging] = staging_bytes;
  return bytes;
}

FloatType ElementType(const PlannedTensor& tensor) {
  return tensor.form == SourceForm::kF8 ? FloatType::kF32 : *AsFloatType(tensor.source_dtype);
}

int64_t PlaneUnitBytes(const PlannedTensor& tensor, Plane plane) {
  switch (plane) {
    case Plane::kData:
      return tensor.quantized() ? 1 : BytesPerElement(ElementType(tensor));
    case Plane::kScales:
      return tensor.double_quantized ? 1 : int64_t{sizeof(float)};
    case Plane::kScaleMaxima:
      return sizeof(float);
  }
  return 0;
}

int64_t PlaneBytes(const PlannedTensor& tensor, const PlannedPart& part, Plane plane) {
  const int64_t unit_bytes = PlaneUnitBytes(tensor, plane);
  if (!tensor.quantized()) {
    return plane == Plane::kData ? part.element_count * unit_bytes : 0;
  }
  const int64_t block_count = BlockCount(part.element_count, tensor.block_size);
  switch (plane) {
    case Plane::kData:
      return CodeBytes(part.element_count) * unit_bytes;
    case Plane::kScales:
      return block_count * unit_bytes;
    case Plane::kScaleMaxima:
      return tensor.double_quantized ? CeilDivide(block_count, kScaleBlockSize) * unit_bytes : 0;
  }
  return 0;
}

absl::StatusOr<LoadPlan> MakeLoadPlan(const Checkpoint& checkpoint,
                                      const QuantizationSpec& quantization,
                                      const ServingSpec& serving, const DeviceTraits& traits,
                                      int64_t staging_bytes, absl::FunctionRef<bool()> cancelled) {
  if (absl::Status status = CheckOptions(quantization, serving, staging_bytes); !status.ok()) {
    return status;
  }
  LoadPlan plan;
  plan.quantization = quantization;
  plan.serving = serving;
  plan.traits = traits;
  plan.configured_staging_bytes = staging_bytes;
  plan.scale_maps = checkpoint.scale_maps;
  if (absl::Status status = PlanTensors(checkpoint, cancelled, plan); !status.ok()) {
    return status;
  }
  CountElements(plan);
  if (plan.loaded_elements == 0) {
    const std::vector<Shard>& shards = checkpoint.shards;
    return absl::DataLossError(absl::StrCat(
        shards.empty() ? "" : shards.front().file_name,
        shards.size() > 1 ? absl::StrCat(" and ", shards.size() - 1, " more files") : "",
        ": none of ", plan.tensors.size(), " tensors holds a weight"));
  }
  LayOutSlab(plan);
  SizeStaging(plan);
  AddWarnings(checkpoint, plan);
  if (absl::Status status = CheckRatio(plan); !status.ok()) {
    return status;
  }
  return plan;
}

}  // namespace nibble
