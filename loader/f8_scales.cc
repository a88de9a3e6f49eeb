#include "loader/f8_scales.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "kernels/bytes.h"
#include "loader/name_map.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr absl::string_view kScaleSuffixes[] = {"_scale_inv", "_scale"};

// Scales of what goes into a layer and comes out of it, for arithmetic in 8 bits: of the layer P if
// W is P.weight, or of W itself.
constexpr absl::string_view kActivationSuffixes[] = {"input_scale", "activation_scale",
                                                     "output_scale"};

bool IsF8(Dtype dtype) {
  return dtype == Dtype::kF8E4M3 || dtype == Dtype::kF8E5M2 || dtype == Dtype::kF8E4M3Fnuz ||
         dtype == Dtype::kF8E5M2Fnuz;
}

struct Block {
  int64_t rows = 0;
  int64_t columns = 0;
};

std::string ShapeText(std::span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

class F8ScaleMerger {
 public:
  explicit F8ScaleMerger(Checkpoint& checkpoint)
      : checkpoint_(checkpoint), removed_(checkpoint.tensors.size()) {}

  absl::Status Merge() {
    const auto count = static_cast<int>(checkpoint_.tensors.size());
    index_of_.reserve(checkpoint_.tensors.size());
    for (int index = 0; index < count; ++index) {
      index_of_.emplace(tensor(index).name, index);
    }
    for (int index = 0; index < count; ++index) {
      if (IsF8(tensor(index).dtype)) {
        absl::Status status = MergeScale(tensor(index));
        if (!status.ok()) {
          return status;
        }
        RemoveActivationScales(tensor(index).name);
      }
    }
    absl::Status status = RefuseLonelyScales();
    if (status.ok()) {
      index_of_.clear();  // Its keys are the tensors' names.
      RemoveTensors(removed_, checkpoint_);
    }
    return status;
  }

 private:
  CheckpointTensor& tensor(int index) const {
    return checkpoint_.tensors[static_cast<size_t>(index)];
  }

  // -1 for none.
  int Find(absl::string_view name) const {
    const auto found = index_of_.find(name);
    return found == index_of_.end() ? -1 : found->second;
  }

  template <typename... Parts>
  absl::Status Refuse(const CheckpointTensor& about, const Parts&... message) const {
    return absl::DataLossError(absl::StrCat(PlaceText(checkpoint_, about), message...));
  }

  template <typename... Parts>
  absl::Status RefuseUnread(const CheckpointTensor& about, const Parts&... message) const {
    return absl::UnimplementedError(absl::StrCat(PlaceText(checkpoint_, about), message...));
  }

  absl::Status MergeScale(CheckpointTensor& weight) {
    if (!AsF8Type(weight.dtype).has_value()) {
      return RefuseUnread(weight, "expected F8_E4M3 or F8_E5M2 of all 8-bit floats, found ",
                          DtypeName(weight.dtype));
    }
    if (checkpoint_.config.quantization_method != "fp8") {
      return RefuseUnread(weight, "expected quantization_config.quant_method fp8 in config.json ",
                          "beside ", DtypeName(weight.dtype), ", found ",
                          checkpoint_.config.quantization_method.empty() ? "none" : "another");
    }
    int scale_index = -1;
    for (const absl::string_view suffix : kScaleSuffixes) {
      const int found = Find(absl::StrCat(weight.name, suffix));
      if (found >= 0 && scale_index >= 0) {
        return Refuse(tensor(found), "expected one tensor of scales, found ",
                      Printable(tensor(scale_index).name), " as well");
      }
      scale_index = found >= 0 ? found : scale_index;
    }
    if (scale_index < 0) {
      return RefuseUnread(weight, "expected its scales as ",
                          Printable(absl::StrCat(weight.name, kScaleSuffixes[0])), " or ",
                          Printable(absl::StrCat(weight.name, kScaleSuffixes[1])), ", found none");
    }
    removed_[static_cast<size_t>(scale_index)] = true;
    return SetScale(tensor(scale_index), weight);
  }

  absl::Status SetScale(const CheckpointTensor& scale, CheckpointTensor& weight) const {
    const std::optional<FloatType> type = AsFloatType(scale.dtype);
    if (!type.has_value()) {
      return RefuseUnread(scale, "expected scales in F32, F16 or BF16, found ",
                          DtypeName(scale.dtype));
    }
    if (weight.shape.size() != 2 && weight.shape.size() != 3) {
      return RefuseUnread(weight, "expected a matrix of ", DtypeName(weight.dtype),
                          ", or one for each expert, found ", ShapeText(weight.shape));
    }
    if (weight.bytes == 0) {  // Its other dimensions may be anything.
      return Refuse(weight, "expected elements, found ", ShapeText(weight.shape));
    }
    std::span<const int64_t> grid = scale.shape;
    if (weight.shape.size() == 3) {
      if (grid.empty() || grid.front() != weight.shape.front()) {
        return Refuse(scale, "expected scales of each of ", weight.shape.front(),
                      " experts, found ", ShapeText(scale.shape));
      }
      grid = grid.subspan(1);
    }
    const std::optional<Block> block = BlockOf(std::span(weight.shape).last(2), grid);
    if (!block.has_value()) {
      return Refuse(scale, "expected scales for ", ShapeText(weight.shape),
                    " by block (weight_block_size [", checkpoint_.config.f8_block_rows, ", ",
                    checkpoint_.config.f8_block_columns, "]), by tensor or by row, found ",
                    ShapeText(scale.shape));
    }
    StoredF8Scale stored;
    stored.scales = {
        .shard_index = scale.shard_index, .offset = scale.file_offset, .bytes = scale.bytes};
    stored.scale_type = *type;
    stored.block_rows = block->rows;
    stored.block_columns = block->columns;
    if (weight.shape.size() == 3 && weight.shape[1] % stored.block_rows != 0) {
      return RefuseUnread(weight, "expected the rows of an expert to be whole blocks of ",
                          stored.block_rows, ", found ", ShapeText(weight.shape));
    }
    weight.f8_scale = stored;
    return absl::OkStatus();
  }

  // What each scale of `grid` is of; nothing if its shape is none that fits. Where two rules fit
  // they mean the same.
  std::optional<Block> BlockOf(std::span<const int64_t> matrix,
                               std::span<const int64_t> grid) const {
    const int64_t rows = matrix[0];
    const int64_t columns = matrix[1];
    const Block block = {checkpoint_.config.f8_block_rows, checkpoint_.config.f8_block_columns};
    if (block.rows > 0 && grid.size() == 2 && grid[0] == CeilDivide(rows, block.rows) &&
        grid[1] == CeilDivide(columns, block.columns)) {
      return Block{std::min(block.rows, rows), std::min(block.columns, columns)};
    }
    const auto is_one = [](int64_t count) { return count == 1; };
    if (grid.size() <= 2 && std::all_of(grid.begin(), grid.end(), is_one)) {
      return Block{rows, columns};
    }
    const bool of_rows = !grid.empty() && grid[0] == rows;
    if (of_rows && (grid.size() == 1 || (grid.size() == 2 && grid[1] == 1))) {
      return Block{1, columns};
    }
    return std::nullopt;
  }

  void RemoveActivationScales(absl::string_view weight_name) {
    absl::string_view layer = weight_name;
    const bool has_layer = absl::ConsumeSuffix(&layer, ".weight");
    for (const absl::string_view suffix : kActivationSuffixes) {
      const int found = Find(absl::StrCat(layer, has_layer ? "." : "_", suffix));
      if (found >= 0 && !IsF8(tensor(found).dtype)) {
        removed_[static_cast<size_t>(found)] = true;
      }
    }
  }

  // Scales without a tensor in 8 bits would be taken for weights.
  absl::Status RefuseLonelyScales() const {
    for (size_t index = 0; index < removed_.size(); ++index) {
      const CheckpointTensor& scale = checkpoint_.tensors[index];
      absl::string_view weight_name = scale.name;
      const bool is_scale = absl::ConsumeSuffix(&weight_name, "_scale_inv") ||
                            (absl::EndsWith(weight_name, ".weight_scale") &&
                             absl::ConsumeSuffix(&weight_name, "_scale"));
      if (!is_scale || removed_[index]) {
        continue;
      }
      const int weight = Find(weight_name);
      return Refuse(scale, "expected the tensor ", Printable(weight_name),
                    " that it scales in 8-bit floats, found ",
                    weight < 0 ? "none" : DtypeName(tensor(weight).dtype));
    }
    return absl::OkStatus();
  }

  Checkpoint& checkpoint_;
  NameViewMap<int> index_of_;  // Of all tensors, by name.
  std::vector<bool> removed_;
};

}  // namespace

absl::Status MergeF8Scales(Checkpoint& checkpoint) {
  const auto in_8_bits = [](const CheckpointTensor& tensor) { return IsF8(tensor.dtype); };
  const bool none = checkpoint.config.quantization_method != "fp8" &&
                    std::none_of(checkpoint.tensors.begin(), checkpoint.tensors.end(), in_8_bits);
  return none ? absl::OkStatus() : F8ScaleMerger(checkpoint).Merge();
}

}  // namespace nibble
