#include "loader/export_plan.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "loader/export_config.h"
#include "loader/weight_names.h"

namespace nibble {
namespace {

// bitsandbytes counts a tensor's elements in an int.
constexpr int64_t kElementsEnd = int64_t{1} << 31;

// A tensor's line in a header is its name and at most this: the longest of our suffixes (34),
// dtype, two dimensions and two offsets of 19 digits each, and their punctuation.
constexpr int64_t kHeaderLineBytes = 192;

// Tensors made of one in 4 bits, and what they hold beside the planes: maps of 16 and 256 numbers,
// the state's JSON.
constexpr int64_t kSideTensorsMax = 6;
constexpr int64_t kSideBytesMax = 64 + 1024 + 512;

// Of a file system's blocks and directories, for each file.
constexpr int64_t kFileOverheadBytes = 64 << 10;

struct UnitSize {
  int64_t plane_bytes = 0;
  int64_t data_bytes_max = 0;
  int64_t header_bytes_max = 0;
};

UnitSize Measure(const ExportUnit& unit, int64_t name_bytes) {
  const PlannedTensor& tensor = *unit.tensor;
  UnitSize size;
  for (int64_t index = 0; index < unit.part_count; ++index) {
    const PlannedPart& part = tensor.parts[static_cast<size_t>(unit.first_part + index)];
    for (const Plane plane : kPlanes) {
      size.plane_bytes += PlaneBytes(tensor, part, plane);
    }
  }
  const int64_t tensor_count = tensor.quantized() ? kSideTensorsMax : 1;
  size.data_bytes_max = size.plane_bytes + (tensor.quantized() ? kSideBytesMax : 0);
  // Each character of a name may be escaped.
  size.header_bytes_max = tensor_count * (2 * name_bytes + kHeaderLineBytes);
  return size;
}

// Cuts shards as units come.
class ShardCutter {
 public:
  ShardCutter(const ShardLimits& limits, ExportPlan& plan) : limits_(limits), plan_(plan) {}

  void Add(const ExportUnit& unit, const UnitSize& size) {
    if (plan_.shards.empty() || (plan_.shards.back().unit_count > 0 && !HasRoom(size))) {
      plan_.shards.push_back({"", plan_.units.size(), 0});
      data_bytes_ = 0;
      header_bytes_ = 0;
    }
    plan_.units.push_back(unit);
    ++plan_.shards.back().unit_count;
    data_bytes_ += size.data_bytes_max;
    header_bytes_ += size.header_bytes_max;
    plan_.plane_bytes += size.plane_bytes;
    // The header's share, and a line in the index, which is no longer.
    plan_.disk_bytes_max += size.data_bytes_max + 2 * size.header_bytes_max;
  }

  void NameShards() {
    const size_t count = plan_.shards.size();
    for (size_t index = 0; index < count; ++index) {
      plan_.shards[index].file_name =
          count == 1 ? "model.safetensors"
                     : absl::StrFormat("model-%05d-of-%05d.safetensors", index + 1, count);
    }
    plan_.disk_bytes_max += static_cast<int64_t>(count + 1) * kFileOverheadBytes;
  }

 private:
  bool HasRoom(const UnitSize& size) const {
    return data_bytes_ + size.data_bytes_max <= limits_.data_bytes_max &&
           header_bytes_ + size.header_bytes_max <= limits_.header_bytes_max;
  }

  const ShardLimits limits_;
  ExportPlan& plan_;
  int64_t data_bytes_ = 0;
  int64_t header_bytes_ = 0;
};

absl::Status CheckTensor(const PlannedTensor& tensor, const ModelConfig& config) {
  if (!tensor.quantized()) {
    return absl::OkStatus();
  }
  for (const PlannedPart& part : tensor.parts) {
    if (part.element_count >= kElementsEnd) {
      return absl::UnimplementedError(absl::StrCat(tensor.name, ": has ", part.element_count,
                                                   " elements in 4 bits, and bitsandbytes, which ",
                                                   "counts in 31 bits, reads fewer than ",
                                                   kElementsEnd, "; keep it to export the rest"));
    }
  }
  const bool fused =
      tensor.weight.role == Role::kExpertsGateUp || tensor.weight.role == Role::kExpertsDown;
  if (fused && !KnowsFusedExperts(config.model_type)) {
    return absl::UnimplementedError(
        absl::StrCat(tensor.name, ": fused experts of the unknown model type ", config.model_type,
                     " cannot be written one by one"));
  }
  return absl::OkStatus();
}

absl::Status CheckModel(const LoadPlan& plan, const ModelConfig& config) {
  if (plan.quantized_elements == 0) {
    return absl::FailedPreconditionError(
        "nothing of the model is in 4 bits: an export would be a copy of its source");
  }
  if (config.nested && !FindTextClass(config.model_type).has_value()) {
    return absl::UnimplementedError(
        absl::StrCat("the text model of ", config.architecture, " (", config.model_type,
                     ") has no class of its own that is known to read it"));
  }
  return absl::OkStatus();
}

// Names of units, for finding that two are equal without keeping them all.
absl::Status CheckDistinct(std::vector<size_t>& hashes, const ModelConfig& config,
                           const std::vector<ExportUnit>& units) {
  std::sort(hashes.begin(), hashes.end());
  const auto twice = std::adjacent_find(hashes.begin(), hashes.end());
  if (twice == hashes.end()) {
    return absl::OkStatus();
  }
  for (const ExportUnit& unit : units) {
    const std::string name = ExportedName(config, unit);
    if (absl::Hash<std::string>()(name) == *twice) {
      return absl::DataLossError(
          absl::StrCat(unit.tensor->name, ": two tensors would be written as ", name));
    }
  }
  return absl::OkStatus();
}

// Whether a reader would take a tensor for a side tensor of one in 4 bits: its name is that one's
// and one or two words more (tensor_groups.cc).
absl::Status CheckNoneSeemsToBelong(const ModelConfig& config,
                                    const std::vector<ExportUnit>& units) {
  std::vector<size_t> owners;
  for (const ExportUnit& unit : units) {
    if (unit.tensor->quantized()) {
      owners.push_back(absl::Hash<std::string>()(ExportedName(config, unit)));
    }
  }
  std::sort(owners.begin(), owners.end());
  for (const ExportUnit& unit : units) {
    const std::string name = ExportedName(config, unit);
    std::string owner = name;
    for (int word = 0; word < 2 && absl::StrContains(owner, '.'); ++word) {
      owner.resize(owner.rfind('.'));
      if (std::binary_search(owners.begin(), owners.end(), absl::Hash<std::string>()(owner))) {
        return absl::UnimplementedError(
            absl::StrCat(unit.tensor->name, ": would be read as belonging to ", owner,
                         ", which is in 4 bits; keep that to export the rest"));
      }
    }
  }
  return absl::OkStatus();
}

// "3 tensors ..., the first is NAME", told once.
struct Finding {
  int64_t count = 0;
  std::string first;

  void Add(const std::string& name) {
    if (count++ == 0) {
      first = name;
    }
  }
};

void WarnOf(const Finding& finding, absl::string_view what, ExportPlan& plan) {
  if (finding.count > 0) {
    plan.warnings.push_back(absl::StrCat(finding.count, finding.count == 1 ? " tensor" : " tensors",
                                         what, "; the first is ", finding.first));
  }
}

bool IsExpert(Role role) {
  return role == Role::kExpertGate || role == Role::kExpertUp || role == Role::kExpertDown ||
         role == Role::kExpertsGateUp || role == Role::kExpertsDown;
}

bool IsNoLinearLayer(Role role) {
  return role == Role::kEmbedding || role == Role::kConvolution || role == Role::kOther;
}

// What transformers does not read, or not as one might think.
void AddWarnings(const ModelConfig& config, ExportPlan& plan) {
  Finding experts;
  Finding no_layers;
  for (const ExportUnit& unit : plan.units) {
    const PlannedTensor& tensor = *unit.tensor;
    if (!tensor.quantized()) {
      continue;
    }
    if (IsExpert(tensor.weight.role)) {
      experts.Add(ExportedName(config, unit));
    } else if (IsNoLinearLayer(tensor.weight.role)) {
      no_layers.Add(ExportedName(config, unit));
    }
  }
  if (config.nested) {
    plan.warnings.push_back(absl::StrCat("the text model alone is written, as ",
                                         FindTextClass(config.model_type).value().architecture));
  }
  WarnOf(experts,
         " of experts are written one by one, as transformers 4 reads them where it knows the "
         "model; transformers 5 reads no experts in 4 bits",
         plan);
  WarnOf(no_layers, " in 4 bits are of no linear layer, and transformers reads only those so",
         plan);
}

}  // namespace

absl::StatusOr<ExportPlan> MakeExportPlan(const LoadPlan& plan, const ModelConfig& config,
                                          absl::string_view config_json,
                                          const ShardLimits& limits) {
  if (absl::Status status = CheckModel(plan, config); !status.ok()) {
    return status;
  }
  ExportPlan exported;
  ShardCutter cutter(limits, exported);
  std::vector<size_t> hashes;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.loaded) {
      continue;
    }
    if (absl::Status status = CheckTensor(tensor, config); !status.ok()) {
      return status;
    }
    for (const ExportUnit& unit : UnitsOf(tensor)) {
      const std::string name = ExportedName(config, unit);
      hashes.push_back(absl::Hash<std::string>()(name));
      cutter.Add(unit, Measure(unit, std::ssize(name)));
    }
  }
  cutter.NameShards();
  if (absl::Status status = CheckDistinct(hashes, config, exported.units); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckNoneSeemsToBelong(config, exported.units); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::string> json = ExportedConfig(plan, config, config_json);
  if (!json.ok()) {
    return json.status();
  }
  exported.config_json = *std::move(json);
  exported.disk_bytes_max += std::ssize(exported.config_json);
  AddWarnings(config, exported);
  return exported;
}

}  // namespace nibble
