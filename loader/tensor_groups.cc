#include "loader/tensor_groups.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "loader/name_map.h"
#include "loader/printable.h"
#include "loader/quant_state.h"

namespace nibble {
namespace {

struct SideSuffix {
  absl::string_view suffix;
  Side side;
  Codebook codebook = Codebook::kNf4;  // Of a quant_state.
};

constexpr SideSuffix kSuffixes[] = {
    {".absmax", Side::kAbsmax},
    {".quant_map", Side::kQuantMap},
    {".nested_absmax", Side::kNestedAbsmax},
    {".nested_quant_map", Side::kNestedQuantMap},
    {".quant_state.bitsandbytes__nf4", Side::kQuantState, Codebook::kNf4},
    {".quant_state.bitsandbytes__fp4", Side::kQuantState, Codebook::kFp4},
};

constexpr absl::string_view kStateWord = ".quant_state.";

constexpr int64_t kQuantMapBytes = 16 * 4;

const SideSuffix* SuffixOf(absl::string_view name) {
  for (const SideSuffix& suffix : kSuffixes) {
    if (name.size() > suffix.suffix.size() && absl::EndsWith(name, suffix.suffix)) {
      return &suffix;
    }
  }
  return nullptr;
}

bool IsNested(Side side) { return side == Side::kNestedAbsmax || side == Side::kNestedQuantMap; }

class GroupFinder {
 public:
  explicit GroupFinder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  absl::StatusOr<std::vector<TensorGroup>> Find() {
    absl::Status status = FindSides();
    if (status.ok() && !groups_.empty()) {
      status = FindCodes();
    }
    for (const TensorGroup& group : groups_) {
      if (!status.ok()) {
        break;
      }
      status = CheckComplete(group);
      status.Update(status.ok() ? CheckTypes(group) : absl::OkStatus());
    }
    return status.ok() ? absl::StatusOr<std::vector<TensorGroup>>(std::move(groups_)) : status;
  }

 private:
  const CheckpointTensor& tensor(int index) const {
    return checkpoint_.tensors[static_cast<size_t>(index)];
  }

  template <typename... Parts>
  absl::Status Refuse(int index, const Parts&... message) const {
    return absl::DataLossError(absl::StrCat(PlaceText(checkpoint_, tensor(index)), message...));
  }

  absl::Status FindSides() {
    for (int index = 0; index < std::ssize(checkpoint_.tensors); ++index) {
      const absl::string_view name = tensor(index).name;
      if (const SideSuffix* const suffix = SuffixOf(name); suffix != nullptr) {
        absl::Status status = AddSide(index, *suffix);
        if (!status.ok()) {
          return status;
        }
      } else if (absl::StrContains(name, kStateWord)) {
        return absl::UnimplementedError(absl::StrCat(
            PlaceText(checkpoint_, tensor(index)),
            "expected quant_state.bitsandbytes__nf4 or quant_state.bitsandbytes__fp4"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddSide(int index, const SideSuffix& suffix) {
    absl::string_view owner = tensor(index).name;
    owner.remove_suffix(suffix.suffix.size());
    if (SuffixOf(owner) != nullptr) {
      return Refuse(index, "expected no such tensor of one that belongs to another itself");
    }
    const auto [entry, is_new] = group_of_.try_emplace(owner, static_cast<int>(groups_.size()));
    if (is_new) {
      groups_.push_back({.name = owner});
    }
    TensorGroup& group = groups_[static_cast<size_t>(entry->second)];
    int& side = group.sides[static_cast<size_t>(suffix.side)];
    if (side >= 0) {  // Names differ, so that one says nf4 and the other fp4.
      return Refuse(index, "expected one quant_state, found ", Printable(tensor(side).name),
                    " as well");
    }
    side = index;
    if (suffix.side == Side::kQuantState) {
      group.codebook = suffix.codebook;
    }
    return absl::OkStatus();
  }

  absl::Status FindCodes() {
    for (int index = 0; index < std::ssize(checkpoint_.tensors); ++index) {
      const absl::string_view name = tensor(index).name;
      if (const auto found = group_of_.find(name); found != group_of_.end()) {
        groups_[static_cast<size_t>(found->second)].codes = index;
      } else if (SuffixOf(name) == nullptr && BelongsToGroup(name)) {
        return Refuse(index, "expected absmax, quant_map, quant_state, nested_absmax or ",
                      "nested_quant_map of a quantized tensor");
      }
    }
    return absl::OkStatus();
  }

  // Whether `name` is that of a group and one or two words more, as side tensors have. (Not any
  // number: hostile names have millions, and each takes a look-up.)
  bool BelongsToGroup(absl::string_view name) const {
    for (int word = 0; word < 2; ++word) {
      const size_t dot = name.rfind('.');
      if (dot == absl::string_view::npos) {
        return false;
      }
      name = name.substr(0, dot);
      if (group_of_.contains(name)) {
        return true;
      }
    }
    return false;
  }

  absl::Status CheckComplete(const TensorGroup& group) const {
    if (group.codes < 0) {
      for (const int index : group.sides) {
        if (index >= 0) {
          return Refuse(index, "expected the tensor ", Printable(group.name),
                        " that it belongs to, found none");
        }
      }
    }
    const bool nested = group.double_quantized() || group.side(Side::kNestedQuantMap) >= 0;
    for (const SideSuffix& suffix : kSuffixes) {
      if (group.side(suffix.side) < 0 && (nested || !IsNested(suffix.side))) {
        return Refuse(group.codes, "expected ", Printable(absl::StrCat(group.name, suffix.suffix)),
                      " with the rest of its quantization, found none");
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckTypes(const TensorGroup& group) const {
    const bool nested = group.double_quantized();
    absl::Status status = Check(group, Side::kAbsmax, nested ? Dtype::kU8 : Dtype::kF32);
    status.Update(Check(group, Side::kQuantMap, Dtype::kF32, kQuantMapBytes));
    status.Update(Check(group, Side::kQuantState, Dtype::kU8));
    const int state = group.side(Side::kQuantState);
    if (tensor(state).bytes > kQuantStateBytesMax) {
      status.Update(Refuse(state, "expected at most ", kQuantStateBytesMax, " bytes, found ",
                           tensor(state).bytes));
    }
    if (nested) {
      status.Update(Check(group, Side::kNestedAbsmax, Dtype::kF32));
      status.Update(Check(group, Side::kNestedQuantMap, Dtype::kF32, sizeof(ScaleMap)));
    }
    return status;
  }

  // Any size if `bytes` is not given.
  absl::Status Check(const TensorGroup& group, Side side, Dtype dtype,
                     std::optional<int64_t> bytes = std::nullopt) const {
    const int index = group.side(side);
    const CheckpointTensor& found = tensor(index);
    if (found.dtype != dtype) {
      return Refuse(index, "expected ", DtypeName(dtype), ", found ", DtypeName(found.dtype));
    }
    if (bytes.has_value() && found.bytes != *bytes) {
      return Refuse(index, "expected ", *bytes, " bytes, found ", found.bytes);
    }
    return absl::OkStatus();
  }

  const Checkpoint& checkpoint_;
  std::vector<TensorGroup> groups_;
  NameViewMap<int> group_of_;  // By name.
};

}  // namespace

absl::StatusOr<std::vector<TensorGroup>> FindTensorGroups(const Checkpoint& checkpoint) {
  return GroupFinder(checkpoint).Find();
}

}  // namespace nibble
