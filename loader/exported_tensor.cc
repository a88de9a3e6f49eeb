#include "loader/exported_tensor.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "kernels/scale_format.h"
#include "loader/python_json.h"
#include "loader/quant_state.h"

namespace nibble {
namespace {

using Content = ExportedTensor::Content;

// As checkpoints hold it: with +0 where CUDA's kernels decode -0.
constexpr std::array<float, 16> kFp4Map = [] {
  std::array<float, 16> values = kFp4Values;
  values[8] = 0.0f;
  return values;
}();

// The bytes of a plane of all the unit's parts.
int64_t UnitBytes(const ExportUnit& unit, Plane plane) {
  int64_t bytes = 0;
  for (int64_t index = 0; index < unit.part_count; ++index) {
    bytes += PlaneBytes(*unit.tensor,
                        unit.tensor->parts[static_cast<size_t>(unit.first_part + index)], plane);
  }
  return bytes;
}

std::string QuantStateJson(const ExportUnit& unit, float scale_mean) {
  const PlannedTensor& tensor = *unit.tensor;
  std::string json = absl::StrCat("{\"quant_type\": \"", QuantTypeName(CodebookOf(tensor.format)),
                                  "\", \"blocksize\": ", tensor.block_size, ", \"dtype\": \"",
                                  TorchDtypeName(tensor), "\", \"shape\": [",
                                  absl::StrJoin(ExportedShape(unit), ", "), "]");
  if (tensor.double_quantized) {
    absl::StrAppend(
        &json, ", \"nested_blocksize\": ", kScaleBlockSize,
        ", \"nested_dtype\": \"float32\", \"nested_offset\": ", PythonNumber(scale_mean));
  }
  return json += '}';
}

ExportedTensor Make(const ExportUnit& unit, std::string name, Dtype dtype,
                    std::vector<int64_t> shape, Content content) {
  ExportedTensor tensor;
  tensor.entry.name = std::move(name);
  tensor.entry.dtype = dtype;
  tensor.entry.bytes = DtypeBits(dtype) / 8;
  for (const int64_t dimension : shape) {
    tensor.entry.bytes *= dimension;
  }
  tensor.entry.shape = std::move(shape);
  tensor.unit = unit;
  tensor.content = content;
  return tensor;
}

ExportedTensor MakePlane(const ExportUnit& unit, std::string name, Dtype dtype, Plane plane) {
  const int64_t bytes = UnitBytes(unit, plane);
  std::vector<int64_t> shape = {bytes / (DtypeBits(dtype) / 8)};
  if (plane == Plane::kData) {
    shape.push_back(1);  // As bitsandbytes keeps packed codes.
  }
  ExportedTensor tensor = Make(unit, std::move(name), dtype, std::move(shape), Content::kPlane);
  tensor.plane = plane;
  return tensor;
}

}  // namespace

absl::string_view TorchDtypeName(const PlannedTensor& tensor) {
  // 8-bit floats have been multiplied by their scales: what they stand for is no type of theirs.
  switch (AsFloatType(tensor.source_dtype).value_or(FloatType::kBf16)) {
    case FloatType::kF32:
      return "float32";
    case FloatType::kF16:
      return "float16";
    case FloatType::kBf16:
      return "bfloat16";
  }
  return "bfloat16";
}

std::vector<ExportedTensor> TensorsOf(const ModelConfig& config, const ExportUnit& unit,
                                      float scale_mean) {
  const PlannedTensor& tensor = *unit.tensor;
  const std::string name = ExportedName(config, unit);
  std::vector<ExportedTensor> tensors;
  if (!tensor.quantized()) {
    tensors.push_back(
        Make(unit, name, DtypeOf(ElementType(tensor)), tensor.shape, Content::kPlane));
    return tensors;
  }
  tensors.push_back(MakePlane(unit, name, Dtype::kU8, Plane::kData));
  tensors.push_back(MakePlane(unit, name + ".absmax",
                              tensor.double_quantized ? Dtype::kU8 : Dtype::kF32, Plane::kScales));
  tensors.push_back(Make(unit, name + ".quant_map", Dtype::kF32,
                         {static_cast<int64_t>(kNf4Values.size())}, Content::kCodebook));
  if (tensor.double_quantized) {
    tensors.push_back(MakePlane(unit, name + ".nested_absmax", Dtype::kF32, Plane::kScaleMaxima));
    tensors.push_back(Make(unit, name + ".nested_quant_map", Dtype::kF32,
                           {static_cast<int64_t>(ScaleMap().size())}, Content::kScaleMap));
  }
  std::string json = QuantStateJson(unit, scale_mean);
  tensors.push_back(Make(
      unit,
      absl::StrCat(name, ".quant_state.bitsandbytes__", QuantTypeName(CodebookOf(tensor.format))),
      Dtype::kU8, {std::ssize(json)}, Content::kLiteral));
  tensors.back().literal = std::move(json);
  return tensors;
}

std::span<const std::byte> BytesOf(const LoadPlan& plan, const ExportedTensor& tensor) {
  const PlannedTensor& source = *tensor.unit.tensor;
  switch (tensor.content) {
    case Content::kLiteral:
      return std::as_bytes(std::span<const char>(tensor.literal));
    case Content::kScaleMap:
      return std::as_bytes(
          std::span<const float>(plan.scale_maps[static_cast<size_t>(source.scale_map_index)]));
    case Content::kCodebook:
      return std::as_bytes(
          std::span<const float>(source.format == Format::kFp4 ? kFp4Map : kNf4Values));
    case Content::kPlane:
      break;
  }
  return {};
}

}  // namespace nibble
