#include "loader/quantization_policy.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/error_details.h"
#include "loader/glob.h"

namespace nibble {
namespace {

// What becomes of a role when no glob says otherwise.
enum class Fate { kQuantized, kKept, kSkipped };

struct RolePolicy {
  Fate fate;
  const char* reason;  // Empty if quantized.
};

RolePolicy PolicyOf(Role role) {
  switch (role) {
    case Role::kQuery:
    case Role::kKey:
    case Role::kValue:
    case Role::kAttentionOutput:
    case Role::kGate:
    case Role::kUp:
    case Role::kDown:
    case Role::kExpertGate:
    case Role::kExpertUp:
    case Role::kExpertDown:
    case Role::kExpertsGateUp:
    case Role::kExpertsDown:
    case Role::kSharedExpertGate:
    case Role::kSharedExpertUp:
    case Role::kSharedExpertDown:
    case Role::kLinearQueryKeyValue:
    case Role::kLinearOutputGate:
    case Role::kLinearAttentionOutput:
    case Role::kLinear:
      return {Fate::kQuantized, ""};
    case Role::kEmbedding:
      return {Fate::kKept, "embedding: looked up by row, kept by default"};
    case Role::kOutputHead:
      return {Fate::kKept, "output head: kept by default"};
    case Role::kNorm:
      return {Fate::kKept, "norm: a vector"};
    case Role::kBias:
      return {Fate::kKept, "bias: a vector"};
    case Role::kRouter:
      return {Fate::kKept, "router: small, and it decides which experts run; kept by default"};
    case Role::kSharedExpertRouter:
      return {Fate::kKept, "gate of the shared expert: small; kept by default"};
    case Role::kLinearDecayGates:
      return {Fate::kKept, "decay gate of linear attention: small; kept by default"};
    case Role::kLinearDecay:
      return {Fate::kKept, "decay of linear attention: a vector"};
    case Role::kConvolution:
      return {Fate::kKept, "convolution: no linear layer; kept by default"};
    case Role::kRotaryBuffer:
      return {Fate::kSkipped, "rotary buffer: computed from the config"};
    case Role::kVision:
      return {Fate::kSkipped, "vision: the text part alone is loaded"};
    case Role::kMultiTokenPrediction:
      return {Fate::kSkipped, "multi-token prediction: not used"};
    case Role::kOther:
      return {Fate::kKept, "not known to be the weight of a linear layer"};
  }
  return {Fate::kKept, "not known to be the weight of a linear layer"};
}

bool IsInteger(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBool:
    case Dtype::kU8:
    case Dtype::kI8:
    case Dtype::kI16:
    case Dtype::kU16:
    case Dtype::kI32:
    case Dtype::kU32:
    case Dtype::kI64:
    case Dtype::kU64:
      return true;
    default:
      return false;
  }
}

// Roles that the generic rule gives, to tensors that may be anything.
bool IsGenericRole(Role role) { return role == Role::kLinear || role == Role::kOther; }

bool IsFused(Role role) { return role == Role::kExpertsGateUp || role == Role::kExpertsDown; }

void Skip(PlannedTensor& tensor, std::string reason) {
  tensor.loaded = false;
  tensor.reason = std::move(reason);
}

void Keep(PlannedTensor& tensor, std::string reason) {
  tensor.format = Format::kAsStored;
  tensor.double_quantized = false;
  tensor.reason = std::move(reason);
  if (tensor.form == SourceForm::kF8) {
    tensor.reason += "; multiplied out to F32";
  }
}

// Whether the files hold what a weight can be made from.
bool IsReadable(const PlannedTensor& tensor) {
  return tensor.form != SourceForm::kElements || AsFloatType(tensor.source_dtype).has_value();
}

// bitsandbytes has no 4 bits of nothing.
bool HasElements(const PlannedTensor& tensor) {
  return std::find(tensor.shape.begin(), tensor.shape.end(), 0) == tensor.shape.end();
}

absl::Status CheckFusedShape(const PlannedTensor& tensor) {
  if (!IsFused(tensor.weight.role)) {
    return absl::OkStatus();
  }
  const bool halves = tensor.weight.role == Role::kExpertsGateUp;
  if (tensor.shape.size() != 3 || (halves && tensor.shape[1] % 2 != 0)) {
    return absl::DataLossError(
        absl::StrCat(tensor.name, ": expected ",
                     halves ? "[experts, 2 * rows, columns]" : "[experts, rows, columns]",
                     ", found [", absl::StrJoin(tensor.shape, ", "), "]"));
  }
  return absl::OkStatus();
}

}  // namespace

TensorGlobs::TensorGlobs(const QuantizationSpec& spec)
    : spec_(&spec), keep_matched_(spec.keep.size()), quantize_matched_(spec.quantize.size()) {}

TensorGlobs::Choice TensorGlobs::Match(absl::string_view tensor_name) {
  const auto match = [tensor_name](const std::vector<std::string>& globs,
                                   std::vector<bool>& matched) {
    bool any = false;
    for (size_t index = 0; index < globs.size(); ++index) {
      // Every glob is tried: each must learn whether it matches something.
      if (GlobMatches(globs[index], tensor_name)) {
        matched[index] = true;
        any = true;
      }
    }
    return any;
  };
  const bool keep = match(spec_->keep, keep_matched_);
  const bool quantize = match(spec_->quantize, quantize_matched_);
  return keep ? Choice::kKeep : quantize ? Choice::kQuantize : Choice::kNone;
}

absl::Status TensorGlobs::CheckAllMatched() const {
  const auto check = [](const char* field, const std::vector<std::string>& globs,
                        const std::vector<bool>& matched) {
    for (size_t index = 0; index < globs.size(); ++index) {
      if (!matched[index]) {
        return BadField(field, absl::StrCat("'", globs[index], "' matches no tensor"));
      }
    }
    return absl::OkStatus();
  };
  absl::Status status = check("quantization.keep", spec_->keep, keep_matched_);
  status.Update(check("quantization.quantize", spec_->quantize, quantize_matched_));
  return status;
}

absl::Status DecideFormat(const QuantizationSpec& spec, TensorGlobs::Choice choice,
                          bool partly_quantized, PlannedTensor& tensor) {
  const bool keep_rest = partly_quantized && spec.keep_unquantized_rest;
  const RolePolicy policy = PolicyOf(tensor.weight.role);
  if (policy.fate == Fate::kSkipped) {
    Skip(tensor, policy.reason);
    return absl::OkStatus();
  }
  if (tensor.form == SourceForm::kFourBit) {
    // Never twice: what a request says about formats is for the rest.
    tensor.reason = choice == TensorGlobs::Choice::kKeep
                        ? "kept by request, in the 4 bits of its checkpoint"
                        : "";
    return absl::OkStatus();
  }
  if (!IsReadable(tensor)) {
    if (IsInteger(tensor.source_dtype) && IsGenericRole(tensor.weight.role)) {
      Skip(tensor, absl::StrCat(DtypeName(tensor.source_dtype), ": integers are not weights"));
      return absl::OkStatus();
    }
    return absl::UnimplementedError(absl::StrCat(tensor.name, ": expected F32, F16 or BF16, found ",
                                                 DtypeName(tensor.source_dtype),
                                                 ", which this version cannot load"));
  }
  if (absl::Status status = CheckFusedShape(tensor); !status.ok()) {
    return status;
  }
  if (spec.format == Format::kAsStored) {
    Keep(tensor, "AS_STORED: nothing is quantized");
  } else if (!HasElements(tensor)) {
    Keep(tensor, "has no elements");
  } else if (choice == TensorGlobs::Choice::kKeep) {
    Keep(tensor, "kept by request");
  } else if (choice == TensorGlobs::Choice::kQuantize && tensor.shape.size() < 2) {
    Keep(tensor, absl::StrCat(policy.reason, *policy.reason == '\0' ? "" : "; ",
                              "a vector is not quantized even by request"));
  } else if (policy.fate == Fate::kKept && choice != TensorGlobs::Choice::kQuantize) {
    Keep(tensor, policy.reason);
  } else if (keep_rest && choice != TensorGlobs::Choice::kQuantize) {
    Keep(tensor, "keep_unquantized_rest: the checkpoint is in 4 bits only in part");
  } else if (tensor.shape.size() < 2) {
    Keep(tensor, "a vector");
  } else {
    tensor.format = spec.format;
    tensor.block_size = spec.block_size;
    tensor.double_quantized = spec.double_quantization;
    tensor.reason.clear();
  }
  return absl::OkStatus();
}

int64_t PartCount(const PlannedTensor& tensor) {
  switch (tensor.weight.role) {
    case Role::kExpertsGateUp:
      // An empty tensor may declare any number of experts.
      return 2 * std::min(tensor.shape[0], std::numeric_limits<int64_t>::max() / 2);
    case Role::kExpertsDown:
      return tensor.shape[0];
    default:
      return 1;
  }
}

std::vector<PlannedPart> CutParts(const PlannedTensor& tensor) {
  const int64_t count = PartCount(tensor);
  if (count == 0) {
    return {};
  }
  const int64_t element_bytes = DtypeBits(tensor.source_dtype) / 8;
  // Exact: the shape is experts (times halves) times the rest.
  const int64_t part_elements = tensor.source_bytes / element_bytes / count;
  std::vector<PlannedPart> parts(static_cast<size_t>(count));
  for (int64_t index = 0; index < count; ++index) {
    PlannedPart& part = parts[static_cast<size_t>(index)];
    part.element_count = part_elements;
    part[Plane::kData].shard_index = tensor.shard_index;
    part[Plane::kData].file_offset = tensor.file_offset + index * part_elements * element_bytes;
  }
  return parts;
}

}  // namespace nibble
