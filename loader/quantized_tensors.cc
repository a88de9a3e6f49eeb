#include "loader/quantized_tensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "kernels/bytes.h"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "loader/name_map.h"
#include "loader/piece_reader.h"
#include "loader/quant_state.h"
#include "loader/tensor_groups.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian");
static_assert(kQuantStateBytesMax <= kPieceBytesMax, "a quant_state is a piece");

// The stored map says which codebook is meant. bitsandbytes' kernels have the values built in and
// do not look at it, so one that was rounded on its way still means ours: to bf16, by up to 2^-9,
// or to the four decimals of older tables. This is half of the least distance between two values of
// a codebook (FP4's 0 and 1/192), so no other order of its values passes.
constexpr float kMapTolerance = 1.0f / 384;
static_assert(kMapTolerance > 1.0f / 512, "what bf16 rounds by passes");

const std::array<float, 16>& ValuesOf(Codebook codebook) {
  return codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
}

// The first value of a quant_map that is none of its codebook's.
struct MapFault {
  int code = -1;
  float found = 0;
};

// Requires: `bytes` are the floats'.
template <size_t kCount>
std::array<float, kCount> ReadFloats(absl::string_view bytes) {
  std::array<float, kCount> floats;
  std::memcpy(floats.data(), bytes.data(), sizeof(floats));
  return floats;
}

class QuantizedTensorMerger {
 public:
  QuantizedTensorMerger(Checkpoint& checkpoint, std::vector<TensorGroup> groups)
      : checkpoint_(checkpoint),
        groups_(std::move(groups)),
        states_(groups_.size()),
        map_faults_(groups_.size()),
        scale_map_indices_(groups_.size()) {}

  absl::Status Merge() {
    absl::Status status = ReadSides();
    for (size_t group_index = 0; group_index < groups_.size() && status.ok(); ++group_index) {
      status = CheckQuantMap(group_index);
      status.Update(CheckSizes(groups_[group_index], states_[group_index]));
    }
    if (!status.ok()) {
      return status;
    }
    for (size_t group_index = 0; group_index < groups_.size(); ++group_index) {
      MergeGroup(group_index);
    }
    RemoveSides();
    return absl::OkStatus();
  }

 private:
  CheckpointTensor& tensor(int index) const {
    return checkpoint_.tensors[static_cast<size_t>(index)];
  }

  FileRange RangeOf(int index) const {
    const CheckpointTensor& found = tensor(index);
    return {.shard_index = found.shard_index, .offset = found.file_offset, .bytes = found.bytes};
  }

  template <typename... Parts>
  absl::Status Refuse(int index, const Parts&... message) const {
    return absl::DataLossError(absl::StrCat(PlaceText(checkpoint_, tensor(index)), message...));
  }

  template <typename... Parts>
  absl::Status RefuseUnread(int index, const Parts&... message) const {
    return absl::UnimplementedError(
        absl::StrCat(PlaceText(checkpoint_, tensor(index)), message...));
  }

  absl::Status ReadSides() {
    std::vector<FilePiece> pieces;
    for (size_t group_index = 0; group_index < groups_.size(); ++group_index) {
      for (const Side side : {Side::kQuantState, Side::kQuantMap, Side::kNestedQuantMap}) {
        if (const int index = groups_[group_index].side(side); index >= 0) {
          pieces.push_back({.range = RangeOf(index),
                            .id = group_index * kSideCount + static_cast<size_t>(side)});
        }
      }
    }
    const auto take = [this](const FilePiece& piece, absl::string_view bytes) {
      return TakeSide(piece.id / kSideCount, static_cast<Side>(piece.id % kSideCount), bytes);
    };
    return ReadPieces(checkpoint_, std::move(pieces), take);
  }

  absl::Status TakeSide(size_t group_index, Side side, absl::string_view bytes) {
    switch (side) {
      case Side::kQuantState:
        return TakeState(group_index, bytes);
      case Side::kQuantMap:
        LookAtQuantMap(group_index, bytes);
        return absl::OkStatus();
      default:
        return TakeScaleMap(group_index, bytes);
    }
  }

  absl::Status TakeState(size_t group_index, absl::string_view json) {
    const TensorGroup& group = groups_[group_index];
    const int index = group.side(Side::kQuantState);
    absl::StatusOr<QuantState> state = ParseQuantState(json);
    if (!state.ok()) {
      return absl::Status(state.status().code(), absl::StrCat(PlaceText(checkpoint_, tensor(index)),
                                                              state.status().message()));
    }
    if (state->codebook != group.codebook) {
      return Refuse(index, "expected quant_type ", QuantTypeName(group.codebook),
                    " as the name says, found ", QuantTypeName(state->codebook));
    }
    if (state->double_quantized != group.double_quantized()) {
      return Refuse(index, "expected ", group.double_quantized() ? "" : "no ",
                    "nested_blocksize, nested_dtype and nested_offset as there is ",
                    group.double_quantized() ? "a" : "no", " nested_absmax");
    }
    states_[group_index] = *std::move(state);
    return absl::OkStatus();
  }

  // Remembered rather than refused: a name and a JSON that disagree are found first, wherever the
  // two lie.
  void LookAtQuantMap(size_t group_index, absl::string_view bytes) {
    const std::array<float, 16>& values = ValuesOf(groups_[group_index].codebook);
    const std::array<float, 16> found = ReadFloats<16>(bytes);
    for (size_t code = values.size(); code-- > 0;) {
      if (!(std::abs(found[code] - values[code]) < kMapTolerance)) {  // NaN is not.
        map_faults_[group_index] = {.code = static_cast<int>(code), .found = found[code]};
      }
    }
  }

  absl::Status CheckQuantMap(size_t group_index) const {
    const TensorGroup& group = groups_[group_index];
    const MapFault& fault = map_faults_[group_index];
    return fault.code < 0 ? absl::OkStatus()
                          : RefuseUnread(group.side(Side::kQuantMap), "expected the values of ",
                                         QuantTypeName(group.codebook), ", ",
                                         ValuesOf(group.codebook)[static_cast<size_t>(fault.code)],
                                         " for code ", fault.code, ", found ", fault.found);
  }

  // bitsandbytes computes scales with the stored map, so it is taken as it is.
  absl::Status TakeScaleMap(size_t group_index, absl::string_view bytes) {
    const int index = groups_[group_index].side(Side::kNestedQuantMap);
    const ScaleMap map = ReadFloats<std::tuple_size_v<ScaleMap>>(bytes);
    const auto not_finite = [](float value) { return !std::isfinite(value); };
    const auto bad = std::find_if(map.begin(), map.end(), not_finite);
    if (bad != map.end()) {
      return Refuse(index, "expected finite values, found ", *bad, " for code ", bad - map.begin());
    }
    const auto [entry, is_new] = scale_map_index_of_.try_emplace(
        std::string(bytes), static_cast<int>(checkpoint_.scale_maps.size()));
    if (is_new && checkpoint_.scale_maps.size() == static_cast<size_t>(kScaleMapsMax)) {
      return RefuseUnread(index, "expected at most ", kScaleMapsMax, " different maps");
    }
    if (is_new) {
      checkpoint_.scale_maps.push_back(map);
    }
    scale_map_indices_[group_index] = entry->second;
    return absl::OkStatus();
  }

  absl::Status CheckSizes(const TensorGroup& group, const QuantState& state) const {
    const auto shape = [&state] {
      return absl::StrCat("[", absl::StrJoin(state.shape, ", "), "] in blocks of ",
                          state.block_size, " as its quant_state says");
    };
    // The kernels write (n + 1) / 2 bytes whatever type they are kept as, and the last element of a
    // wide type may be there in part. (bitsandbytes itself rounds down, and loses codes.)
    const CheckpointTensor& codes = tensor(group.codes);
    const int64_t code_bytes = CodeBytes(state.element_count);
    const int64_t padding_max = std::max(DtypeBits(codes.dtype) / 8, 1) - 1;
    if (codes.bytes < code_bytes || codes.bytes - code_bytes > padding_max) {
      return Refuse(group.codes, "expected ", code_bytes, " bytes of codes for ", shape(),
                    ", found ", codes.bytes);
    }
    const auto check = [this, &group, &shape](Side side, int64_t bytes) {
      const int index = group.side(side);
      return tensor(index).bytes == bytes ? absl::OkStatus()
                                          : Refuse(index, "expected ", bytes, " bytes for ",
                                                   shape(), ", found ", tensor(index).bytes);
    };
    const int64_t blocks = BlockCount(state.element_count, state.block_size);
    if (!state.double_quantized) {
      return check(Side::kAbsmax, blocks * 4);
    }
    absl::Status status = check(Side::kAbsmax, blocks);
    status.Update(check(Side::kNestedAbsmax, CeilDivide(blocks, kNestedBlockSize) * 4));
    return status;
  }

  void MergeGroup(size_t group_index) {
    const TensorGroup& group = groups_[group_index];
    QuantState& state = states_[group_index];
    StoredQuantization quantization;
    quantization.codebook = state.codebook;
    quantization.block_size = state.block_size;
    quantization.scales = RangeOf(group.side(Side::kAbsmax));
    if (state.double_quantized) {
      quantization.double_quantized = true;
      quantization.scale_maxima = RangeOf(group.side(Side::kNestedAbsmax));
      quantization.scale_mean = state.scale_mean;
      quantization.scale_map_index = scale_map_indices_[group_index];
    }
    CheckpointTensor& merged = tensor(group.codes);
    merged.dtype = state.dtype;
    merged.shape = std::move(state.shape);
    merged.bytes = CodeBytes(state.element_count);
    merged.quantization = quantization;
  }

  void RemoveSides() {
    std::vector<bool> removed(checkpoint_.tensors.size());
    for (const TensorGroup& group : groups_) {
      for (const int index : group.sides) {
        if (index >= 0) {
          removed[static_cast<size_t>(index)] = true;
        }
      }
    }
    groups_.clear();  // Their names are of the tensors.
    RemoveTensors(removed, checkpoint_);
  }

  Checkpoint& checkpoint_;
  std::vector<TensorGroup> groups_;
  std::vector<QuantState> states_;      // Of each group.
  std::vector<MapFault> map_faults_;    // Likewise.
  std::vector<int> scale_map_indices_;  // Likewise.
  NameMap<int> scale_map_index_of_;     // By the map's bytes.
};

}  // namespace

absl::Status MergeQuantizedTensors(Checkpoint& checkpoint) {
  absl::StatusOr<std::vector<TensorGroup>> groups = FindTensorGroups(checkpoint);
  if (!groups.ok()) {
    return groups.status();
  }
  if (groups->empty()) {
    return absl::OkStatus();
  }
  if (checkpoint.config.quantization_method.empty()) {
    checkpoint.config.quantization_method = "bitsandbytes";
  }
  return QuantizedTensorMerger(checkpoint, *std::move(groups)).Merge();
}

}  // namespace nibble
