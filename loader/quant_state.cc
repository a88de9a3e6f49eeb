#include "loader/quant_state.h"

#include <cmath>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "loader/json_reader.h"
#include "loader/name_map.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr int kDepthMax = 4;  // The shape is a list in an object.

// Experts, rows, columns and more than anyone has; it bounds what a state takes in memory.
constexpr size_t kDimensionsMax = 8;

// Sizes that follow from it (codes, scales) cannot overflow; as in a load plan.
constexpr int64_t kElementsMax = int64_t{1} << 60;

class QuantStateParser {
 public:
  explicit QuantStateParser(absl::string_view json)
      : reader_(json, {.depth_max = kDepthMax, .allow_nan_and_infinity = false}) {}

  absl::StatusOr<QuantState> Parse() {
    std::string key;
    reader_.EnterObject();
    while (reader_.NextMember(key)) {
      if (!seen_.insert(key).second) {
        reader_.Refuse(absl::StrCat(Printable(key), " stands twice"));
      } else {
        ParseMember(key);
      }
      if (!reader_.status().ok() || !unread_.ok()) {
        break;
      }
    }
    if (!unread_.ok()) {
      return unread_;
    }
    reader_.Finish();
    if (!reader_.status().ok()) {
      return reader_.status();
    }
    const absl::Status complete = CheckComplete();
    return complete.ok() ? absl::StatusOr<QuantState>(state_) : complete;
  }

 private:
  void ParseMember(const std::string& key) {
    if (key == "quant_type") {
      ParseQuantType();
    } else if (key == "blocksize") {
      ParseBlockSize();
    } else if (key == "dtype") {
      ParseDtypeName();
    } else if (key == "shape") {
      ParseShape();
    } else if (key == "nested_blocksize") {
      ParseNestedBlockSize();
    } else if (key == "nested_dtype") {
      ParseNestedDtype();
    } else if (key == "nested_offset") {
      ParseNestedOffset();
    } else {
      reader_.Refuse(absl::StrCat("expected no key ", Printable(key)));
    }
  }

  // Well formed, but not what we read.
  void RefuseUnread(absl::string_view message) { unread_ = absl::UnimplementedError(message); }

  void ParseQuantType() {
    std::string type;
    if (!reader_.ReadString(type)) {
      return;
    }
    if (type != "nf4" && type != "fp4") {
      RefuseUnread(absl::StrCat("quant_type: expected nf4 or fp4, found ", Printable(type)));
      return;
    }
    state_.codebook = type == "nf4" ? Codebook::kNf4 : Codebook::kFp4;
  }

  void ParseBlockSize() {
    uint64_t size = 0;
    if (!reader_.ReadUnsigned(size)) {
      return;
    }
    if (size > static_cast<uint64_t>(kBlockSizeMax) || !IsBlockSize(static_cast<int64_t>(size))) {
      reader_.Refuse(absl::StrCat("blocksize: expected a power of two from ", kBlockSizeMin, " to ",
                                  kBlockSizeMax, ", found ", size));
      return;
    }
    state_.block_size = static_cast<int64_t>(size);
  }

  void ParseDtypeName() {
    std::string name;
    if (!reader_.ReadString(name)) {
      return;
    }
    if (name == "bfloat16") {
      state_.dtype = Dtype::kBf16;
    } else if (name == "float16") {
      state_.dtype = Dtype::kF16;
    } else if (name == "float32") {
      state_.dtype = Dtype::kF32;
    } else {
      reader_.Refuse(
          absl::StrCat("dtype: expected bfloat16, float16 or float32, found ", Printable(name)));
    }
  }

  void ParseShape() {
    if (reader_.Peek() == JsonReader::Kind::kNull) {
      // The codes tell the size, but neither rows and columns nor whether the last nibble counts.
      RefuseUnread("shape: expected a list, found null");
      return;
    }
    uint64_t dimension = 0;
    state_.element_count = 1;
    reader_.EnterArray();
    while (reader_.NextElement() && reader_.ReadUnsigned(dimension)) {
      if (state_.shape.size() == kDimensionsMax) {
        reader_.Refuse(absl::StrCat("shape: expected at most ", kDimensionsMax, " dimensions"));
        return;
      }
      if (dimension == 0 ||
          dimension > static_cast<uint64_t>(kElementsMax / state_.element_count)) {
        reader_.Refuse(absl::StrCat("shape: expected 1 to ", kElementsMax, " elements, found [",
                                    absl::StrJoin(state_.shape, ", "),
                                    state_.shape.empty() ? "" : ", ", dimension, "..."));
        return;
      }
      state_.shape.push_back(static_cast<int64_t>(dimension));
      state_.element_count *= static_cast<int64_t>(dimension);
    }
    if (reader_.status().ok() && state_.shape.empty()) {
      reader_.Refuse("shape: expected at least one dimension, found none");
    }
  }

  void ParseNestedBlockSize() {
    uint64_t size = 0;
    if (reader_.ReadUnsigned(size) && size != static_cast<uint64_t>(kNestedBlockSize)) {
      RefuseUnread(absl::StrCat("nested_blocksize: expected ", kNestedBlockSize, ", found ", size));
    }
  }

  void ParseNestedDtype() {
    std::string name;
    if (reader_.ReadString(name) && name != "float32") {
      RefuseUnread(absl::StrCat("nested_dtype: expected float32, found ", Printable(name)));
    }
  }

  void ParseNestedOffset() {
    double offset = 0;
    if (!reader_.ReadDouble(offset)) {
      return;
    }
    // bitsandbytes makes a float32 tensor of it.
    if (std::abs(offset) > std::numeric_limits<float>::max()) {
      reader_.Refuse(absl::StrCat("nested_offset: expected a float32, found ", offset));
      return;
    }
    state_.scale_mean = static_cast<float>(offset);
  }

  absl::Status CheckComplete() {
    for (const char* key : {"quant_type", "blocksize", "dtype", "shape"}) {
      if (!seen_.contains(key)) {
        return absl::DataLossError(absl::StrCat("expected ", key, ", found none"));
      }
    }
    int nested_count = 0;
    for (const char* key : {"nested_blocksize", "nested_dtype", "nested_offset"}) {
      nested_count += seen_.contains(key) ? 1 : 0;
    }
    if (nested_count != 0 && nested_count != 3) {
      return absl::DataLossError(absl::StrCat(
          "expected nested_blocksize, nested_dtype and nested_offset, or none of them, found ",
          nested_count));
    }
    state_.double_quantized = nested_count == 3;
    return absl::OkStatus();
  }

  JsonReader reader_;
  absl::Status unread_;
  NameSet seen_;
  QuantState state_;
};

}  // namespace

absl::string_view QuantTypeName(Codebook codebook) {
  return codebook == Codebook::kNf4 ? "nf4" : "fp4";
}

absl::StatusOr<QuantState> ParseQuantState(absl::string_view json) {
  if (json.size() > static_cast<size_t>(kQuantStateBytesMax)) {
    return absl::DataLossError(
        absl::StrCat("expected at most ", kQuantStateBytesMax, " bytes, found ", json.size()));
  }
  return QuantStateParser(json).Parse();
}

}  // namespace nibble
