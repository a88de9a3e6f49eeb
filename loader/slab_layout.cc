#include "loader/slab_layout.h"

#include <algorithm>
#include <span>
#include <tuple>

#include "kernels/scale_format.h"

namespace nibble {
namespace {

// Groups of a layer in the order of their use. Roles of one group are read together.
enum class Group {
  kAttentionInputs,
  kGateUp,
  kSharedGateUp,
  kExpertsGateUp,
  kExpertsDown,
  kAlone,
};

struct GroupPlace {
  Group group;
  int order;  // Among the roles of a group.
};

GroupPlace PlaceOf(Role role) {
  switch (role) {
    case Role::kQuery:
    case Role::kLinearQueryKeyValue:
      return {Group::kAttentionInputs, 0};
    case Role::kKey:
    case Role::kLinearOutputGate:
      return {Group::kAttentionInputs, 1};
    case Role::kValue:
      return {Group::kAttentionInputs, 2};
    case Role::kGate:
      return {Group::kGateUp, 0};
    case Role::kUp:
      return {Group::kGateUp, 1};
    case Role::kSharedExpertGate:
      return {Group::kSharedGateUp, 0};
    case Role::kSharedExpertUp:
      return {Group::kSharedGateUp, 1};
    case Role::kExpertGate:
    case Role::kExpertsGateUp:
      return {Group::kExpertsGateUp, 0};
    case Role::kExpertUp:
      return {Group::kExpertsGateUp, 1};
    case Role::kExpertDown:
    case Role::kExpertsDown:
      return {Group::kExpertsDown, 0};
    default:
      return {Group::kAlone, 0};
  }
}

// One part on its way to its place. Sorted by group, then by the order within it.
struct Piece {
  int layer_index;
  Group group;
  size_t alone_index;  // Tells groups of one apart; 0 in a shared group.
  int expert_index;
  int order;
  size_t tensor_index;
  size_t part_index;

  auto group_key() const { return std::tie(layer_index, group, alone_index); }
  auto key() const {
    return std::tie(layer_index, group, alone_index, expert_index, order, tensor_index, part_index);
  }
};

std::vector<Piece> SortedPieces(const std::vector<PlannedTensor>& tensors) {
  size_t count = 0;
  for (const PlannedTensor& tensor : tensors) {
    count += tensor.parts.size();
  }
  std::vector<Piece> pieces;
  pieces.reserve(count);
  for (size_t tensor_index = 0; tensor_index < tensors.size(); ++tensor_index) {
    const PlannedTensor& tensor = tensors[tensor_index];
    const auto [group, order] = PlaceOf(tensor.weight.role);
    for (size_t part_index = 0; part_index < tensor.parts.size(); ++part_index) {
      pieces.push_back({tensor.weight.layer_index, group, group == Group::kAlone ? tensor_index : 0,
                        tensor.weight.expert_index, order, tensor_index, part_index});
    }
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& left, const Piece& right) { return left.key() < right.key(); });
  return pieces;
}

// Places the pieces of one group from `offset` on. Returns where it ends.
int64_t PlaceGroup(LoadPlan& plan, std::span<const Piece> group, int64_t offset) {
  for (const Plane plane : kPlanes) {
    for (const Piece& piece : group) {
      PlannedTensor& tensor = plan.tensors[piece.tensor_index];
      PlannedPart& part = tensor.parts[piece.part_index];
      const int64_t bytes = PlaneBytes(tensor, part, plane);
      if (bytes > 0 || plane == Plane::kData) {
        part[plane].slab_offset = RoundUp(offset, plan.traits.alignment_bytes);
        offset = part[plane].slab_offset + bytes;
      }
    }
  }
  return offset;
}

// Places what double quantization needs beside its planes: the maps, then the mean of each part,
// packed. Returns where they end.
int64_t PlaceScaleConstants(LoadPlan& plan, int64_t offset) {
  offset = RoundUp(offset, plan.traits.alignment_bytes);
  plan.scale_maps_offset = offset;
  offset += std::ssize(plan.scale_maps) * int64_t{sizeof(ScaleMap)};
  for (PlannedTensor& tensor : plan.tensors) {
    for (PlannedPart& part : tensor.parts) {
      if (tensor.double_quantized) {
        part.scale_mean_offset = offset;
        offset += int64_t{sizeof(float)};
      }
    }
  }
  return offset;
}

// What the scales mean that are double-quantized here.
void AddStandardScaleMap(LoadPlan& plan) {
  int index = -1;
  for (PlannedTensor& tensor : plan.tensors) {
    if (!tensor.loaded || !tensor.double_quantized || tensor.form == SourceForm::kFourBit) {
      continue;
    }
    if (index < 0) {
      const auto standard = std::find(plan.scale_maps.begin(), plan.scale_maps.end(), kScaleMap);
      index = static_cast<int>(standard - plan.scale_maps.begin());
      if (standard == plan.scale_maps.end()) {
        plan.scale_maps.push_back(kScaleMap);
      }
    }
    tensor.scale_map_index = index;
  }
}

}  // namespace

void LayOutSlab(LoadPlan& plan) {
  AddStandardScaleMap(plan);
  const std::vector<Piece> pieces = SortedPieces(plan.tensors);
  int64_t offset = 0;
  for (auto first = pieces.begin(); first != pieces.end();) {
    const auto last = std::find_if(first, pieces.end(), [first](const Piece& piece) {
      return piece.group_key() != first->group_key();
    });
    offset = PlaceGroup(plan, std::span<const Piece>(first, last), offset);
    first = last;
  }
  offset = PlaceScaleConstants(plan, offset);
  plan.weights_bytes = RoundUp(offset, plan.traits.granularity_bytes);
  for (PlannedTensor& tensor : plan.tensors) {
    tensor.device_bytes = 0;
    for (const PlannedPart& part : tensor.parts) {
      for (const Plane plane : kPlanes) {
        tensor.device_bytes += PlaneBytes(tensor, part, plane);
      }
      tensor.device_bytes += tensor.double_quantized ? int64_t{sizeof(float)} : 0;
    }
  }
}

void SizeStaging(LoadPlan& plan) {
  int64_t largest_bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.double_quantized || tensor.form == SourceForm::kFourBit) {
      continue;
    }
    for (const PlannedPart& part : tensor.parts) {
      largest_bytes = std::max(largest_bytes, ScaleBytes(part.element_count, tensor.block_size));
    }
  }
  plan.scale_scratch_bytes = 2 * RoundUp(largest_bytes, plan.traits.alignment_bytes);
  plan.staging_bytes = RoundUp(plan.configured_staging_bytes + plan.scale_scratch_bytes,
                               plan.traits.granularity_bytes);
}

}  // namespace nibble
