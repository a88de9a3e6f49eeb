#include "loader/cache_key.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "loader/checksum.h"
#include "loader/python_json.h"

namespace nibble {
namespace {

// To be raised when entries look different, or when kernels make other bytes of the same source.
constexpr int kCacheVersion = 1;

bool IsQuantizedHere(const PlannedTensor& tensor) {
  return tensor.loaded && tensor.quantized() && tensor.form != SourceForm::kFourBit;
}

// Whether the last bit may depend on the device, see CacheKey.
bool DependsOnDevice(const PlannedTensor& tensor) {
  return IsQuantizedHere(tensor) &&
         (ElementType(tensor) == FloatType::kF32 || tensor.double_quantized);
}

void AppendRange(std::string& text, const FileRange& range) {
  absl::StrAppend(&text, " ", range.shard_index, ":", range.offset, "+", range.bytes);
}

// One line for a tensor, one for each of its parts: what is read, and what it becomes.
std::string DescribeTensor(const PlannedTensor& tensor) {
  std::string text = absl::StrCat(
      tensor.name, "\n", tensor.loaded, " ", FormatName(tensor.format), " ", tensor.block_size, " ",
      tensor.double_quantized, " ", static_cast<int>(tensor.form), " ",
      DtypeName(tensor.source_dtype), " [", absl::StrJoin(tensor.shape, ","), "]");
  AppendRange(text, {tensor.shard_index, tensor.file_offset, tensor.source_bytes});
  if (tensor.f8_scale.has_value()) {
    AppendRange(text, tensor.f8_scale->scales);
    absl::StrAppend(&text, " ", static_cast<int>(tensor.f8_scale->scale_type), " ",
                    tensor.f8_scale->block_rows, "x", tensor.f8_scale->block_columns);
  }
  for (const PlannedPart& part : tensor.parts) {
    absl::StrAppend(&text, "\n", part.element_count);
    for (const Plane plane : kPlanes) {
      absl::StrAppend(&text, " ", part[plane].shard_index, ":", part[plane].file_offset);
    }
    if (tensor.form == SourceForm::kFourBit && tensor.double_quantized) {
      absl::StrAppend(&text, " ", std::bit_cast<uint32_t>(part.scale_mean), " ",
                      tensor.scale_map_index);
    }
  }
  return text += '\n';
}

std::string PlanDigest(const LoadPlan& plan) {
  DigestStream digest;
  for (const PlannedTensor& tensor : plan.tensors) {
    digest.Add(DescribeTensor(tensor));
  }
  digest.Add(std::as_bytes(std::span(plan.scale_maps)));
  return digest.hex();
}

void AppendShard(std::string& json, const Shard& shard) {
  json += "{\"name\":";
  AppendJsonString(json, shard.file_name);
  absl::StrAppend(&json, ",\"header\":\"", shard.header_digest,
                  "\",\"bytes\":", shard.identity.bytes,
                  ",\"modified_ns\":", shard.identity.modified_ns,
                  ",\"changed_ns\":", shard.identity.changed_ns,
                  ",\"inode\":", shard.identity.inode, ",\"device\":", shard.identity.device, "}");
}

void AppendStrings(std::string& json, const std::vector<std::string>& strings) {
  json += '[';
  absl::string_view separator;
  for (const std::string& text : strings) {
    absl::StrAppend(&json, separator);
    AppendJsonString(json, text);
    separator = ",";
  }
  json += ']';
}

const char* JsonBool(bool value) { return value ? "true" : "false"; }

void AppendSpec(std::string& json, const QuantizationSpec& spec) {
  // Named one by one, so that a new field does not compile before it was decided whether it
  // belongs here.
  [[maybe_unused]] const auto& [format, block_size, double_quantization, keep, quantize,
                                keep_unquantized_rest, scale_search, positive_scales,
                                min_quantized_ratio, allow_non_finite, error_stats] = spec;
  absl::StrAppend(&json, "{\"format\":\"", FormatName(format), "\",\"block_size\":", block_size,
                  ",\"double_quantization\":", JsonBool(double_quantization), ",\"keep\":");
  AppendStrings(json, keep);
  json += ",\"quantize\":";
  AppendStrings(json, quantize);
  absl::StrAppend(&json, ",\"keep_unquantized_rest\":", JsonBool(keep_unquantized_rest),
                  ",\"scale_search\":", JsonBool(scale_search),
                  ",\"positive_scales\":", JsonBool(positive_scales),
                  ",\"allow_non_finite\":", JsonBool(allow_non_finite), "}");
}

const char* KindName(DeviceKind kind) { return kind == DeviceKind::kCuda ? "cuda" : "host"; }

}  // namespace

CacheKey MakeCacheKey(const Checkpoint& checkpoint, const LoadPlan& plan) {
  CacheKey key;
  std::string& json = key.text;
  absl::StrAppend(&json, "{\"nibble_cache\":", kCacheVersion, ",\"config\":\"",
                  Digest(checkpoint.config_json), "\",\"shards\":[");
  absl::string_view separator;
  for (const Shard& shard : checkpoint.shards) {
    absl::StrAppend(&json, separator);
    AppendShard(json, shard);
    separator = ",";
  }
  json += "],\"quantization\":";
  AppendSpec(json, plan.quantization);
  const bool depends = std::any_of(plan.tensors.begin(), plan.tensors.end(), DependsOnDevice);
  absl::StrAppend(&json, ",\"plan\":\"", PlanDigest(plan), "\",\"device_kind\":\"",
                  depends ? KindName(plan.traits.kind) : "any", "\"}");
  key.entry_name = Digest(json);
  return key;
}

bool IsCacheable(const LoadPlan& plan) {
  return !plan.quantization.error_stats &&
         std::any_of(plan.tensors.begin(), plan.tensors.end(), IsQuantizedHere);
}

}  // namespace nibble
