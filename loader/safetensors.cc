#include "loader/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/bytes.h"
#include "loader/checksum.h"
#include "loader/json_reader.h"
#include "loader/name_map.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr absl::string_view kMetadataKey = "__metadata__";

// What serde_json, the official reader's parser, allows: its limit of 128 counts one more.
constexpr int kHeaderDepthMax = 127;

absl::Status Malformed(absl::string_view file_name, absl::string_view message) {
  return absl::DataLossError(absl::StrCat(file_name, ": ", message));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// The bytes that a tensor's dtype and shape call for.
//
// Errors: DATA_LOSS without the tensor's name. As in the official reader, a product that overflows
//   64 bits on the way is refused even if a later dimension is 0.
absl::StatusOr<uint64_t> DataBytes(Dtype dtype, const std::vector<int64_t>& shape) {
  uint64_t bits = 1;
  bool overflows = false;
  for (const int64_t dimension : shape) {
    overflows = overflows || __builtin_mul_overflow(bits, static_cast<uint64_t>(dimension), &bits);
  }
  overflows =
      overflows || __builtin_mul_overflow(bits, static_cast<uint64_t>(DtypeBits(dtype)), &bits);
  if (overflows) {
    return absl::DataLossError(absl::StrCat("expected fewer than 2^64 bits, found ",
                                            DtypeName(dtype), " ", ShapeText(shape)));
  }
  if (bits % 8 != 0) {
    return absl::DataLossError(absl::StrCat("expected whole bytes, found ", DtypeName(dtype), " ",
                                            ShapeText(shape), ": ", bits, " bits"));
  }
  return bits / 8;
}

// Reads the JSON of a header. Offsets of its entries are those of the file's data part.
class HeaderParser {
 public:
  HeaderParser(absl::string_view json) : reader_(json, {.depth_max = kHeaderDepthMax}) {}

  // Errors: DATA_LOSS without the file's name.
  absl::Status Parse(SafetensorsHeader& header) {
    std::string name;
    bool has_metadata = false;
    reader_.EnterObject();
    while (reader_.NextMember(name)) {
      if (name != kMetadataKey && header.entries.size() == kSafetensorsTensorsMax) {
        reader_.Refuse(absl::StrCat("expected at most ", kSafetensorsTensorsMax, " tensors"));
      } else if (name != kMetadataKey) {
        ParseEntry(header.entries.emplace_back(), name);
      } else if (!has_metadata) {
        has_metadata = true;
        ParseMetadata(header.metadata);
      } else {
        reader_.Refuse("__metadata__ stands twice");
      }
      if (!reader_.status().ok()) {
        return absl::DataLossError(absl::StrCat(name == kMetadataKey ? "" : "tensor ",
                                                Printable(name), ": ", reader_.status().message()));
      }
    }
    reader_.Finish();
    return reader_.status();
  }

 private:
  // Bits, to see which have been read.
  static constexpr unsigned kDtypeField = 1;
  static constexpr unsigned kShapeField = 2;
  static constexpr unsigned kOffsetsField = 4;
  static constexpr unsigned kAllFields = kDtypeField | kShapeField | kOffsetsField;

  void ParseEntry(SafetensorsEntry& entry, const std::string& name) {
    entry.name = name;
    unsigned seen = 0;
    reader_.EnterObject();
    while (reader_.NextMember(key_)) {
      const unsigned field = FieldOf(key_);
      if ((seen & field) != 0) {
        reader_.Refuse(absl::StrCat(key_, " stands twice"));
        return;
      }
      seen |= field;
      ParseField(field, entry);
    }
    if (seen != kAllFields) {
      reader_.Refuse("expected dtype, shape and data_offsets, not all are there");
    }
  }

  // 0 for a field that the format does not know.
  static unsigned FieldOf(absl::string_view key) {
    if (key == "dtype") {
      return kDtypeField;
    }
    if (key == "shape") {
      return kShapeField;
    }
    return key == "data_offsets" ? kOffsetsField : 0;
  }

  void ParseField(unsigned field, SafetensorsEntry& entry) {
    switch (field) {
      case kDtypeField:
        ParseDtypeField(entry.dtype);
        break;
      case kShapeField:
        ParseShape(entry.shape);
        break;
      case kOffsetsField:
        ParseOffsets(entry);
        break;
      default:  // The official reader ignores what it does not know.
        reader_.SkipValue();
    }
  }

  void ParseDtypeField(Dtype& dtype) {
    std::string name;
    if (!reader_.ReadString(name)) {
      return;
    }
    const std::optional<Dtype> parsed = ParseDtype(name);
    if (!parsed.has_value()) {
      reader_.Refuse(
          absl::StrCat("expected a dtype of the safetensors format, found ", Printable(name)));
      return;
    }
    dtype = *parsed;
  }

  void ParseShape(std::vector<int64_t>& shape) {
    reader_.EnterArray();
    // One exact allocation, where there is something to allocate for: a run of commas is no shape.
    const auto count = static_cast<size_t>(reader_.NumbersAhead());
    if (count > kSafetensorsDimensionsMax) {
      reader_.Refuse(absl::StrCat("expected at most ", kSafetensorsDimensionsMax,
                                  " dimensions, found ", count));
      return;
    }
    shape.reserve(count);
    uint64_t dimension = 0;
    while (reader_.NextElement()) {
      if (reader_.ReadUnsigned(dimension) && dimension > INT64_MAX) {
        reader_.Refuse(absl::StrCat("expected a dimension below 2^63, found ", dimension));
      }
      shape.push_back(static_cast<int64_t>(dimension));
    }
  }

  void ParseOffsets(SafetensorsEntry& entry) {
    std::array<uint64_t, 2> offsets = {};
    size_t count = 0;
    reader_.EnterArray();
    while (reader_.NextElement()) {
      uint64_t offset = 0;
      reader_.ReadUnsigned(offset);
      if (count < offsets.size()) {
        offsets[count] = offset;
      }
      ++count;
    }
    const auto [begin, end] = offsets;
    if (count != offsets.size() || begin > end || end > INT64_MAX) {
      reader_.Refuse("expected data_offsets [begin, end] with begin <= end < 2^63");
      return;
    }
    entry.begin_bytes = static_cast<int64_t>(begin);
    entry.bytes = static_cast<int64_t>(end - begin);
  }

  void ParseMetadata(std::vector<std::pair<std::string, std::string>>& metadata) {
    NameMap<std::string> values;
    std::string value;
    reader_.EnterObject();
    while (reader_.NextMember(key_) && reader_.ReadString(value)) {
      // As in the official reader the last one wins. What is beyond the limit is checked, not kept.
      if (values.size() < kSafetensorsMetadataCountMax || values.contains(key_)) {
        values[key_] = value;
      }
    }
    metadata.assign(std::make_move_iterator(values.begin()), std::make_move_iterator(values.end()));
    std::sort(metadata.begin(), metadata.end());
  }

  JsonReader reader_;
  std::string key_;
};

absl::Status RefuseDuplicates(const std::vector<SafetensorsEntry>& entries) {
  NameViewSet names;
  names.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) {
    if (!names.insert(entry.name).second) {
      return absl::DataLossError(absl::StrCat("tensor ", Printable(entry.name), " stands twice"));
    }
  }
  return absl::OkStatus();
}

// Checks that `entries`, sorted, cover the data without holes or overlaps and that each has the
// size its dtype and shape call for.
absl::Status CheckLayout(const std::vector<SafetensorsEntry>& entries, int64_t data_bytes) {
  int64_t end = 0;
  for (const SafetensorsEntry& entry : entries) {
    const auto refuse = [&entry](auto&&... message) {
      return absl::DataLossError(absl::StrCat("tensor ", Printable(entry.name), ": ", message...));
    };
    if (entry.begin_bytes != end) {
      return refuse("expected its data to begin at ", end, ", found ", entry.begin_bytes,
                    entry.begin_bytes > end ? ": a hole" : ": it overlaps another");
    }
    const absl::StatusOr<uint64_t> bytes = DataBytes(entry.dtype, entry.shape);
    if (!bytes.ok()) {
      return refuse(bytes.status().message());
    }
    if (*bytes != static_cast<uint64_t>(entry.bytes)) {
      return refuse("expected ", *bytes, " bytes for ", DtypeName(entry.dtype), " ",
                    ShapeText(entry.shape), ", found ", entry.bytes);
    }
    end += entry.bytes;
    if (end > data_bytes) {
      return refuse("truncated: expected its data to end at ", end, ", found ", data_bytes,
                    " bytes of data in the file");
    }
  }
  if (end != data_bytes) {
    return absl::DataLossError(absl::StrCat("expected ", end, " bytes of tensor data, found ",
                                            data_bytes, " in the file"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file_name,
                                                         absl::string_view json,
                                                         int64_t file_bytes) {
  const int64_t data_begin = kSafetensorsLengthBytes + static_cast<int64_t>(json.size());
  SafetensorsHeader header;
  header.digest = Digest(json);
  std::vector<SafetensorsEntry>& entries = header.entries;
  absl::Status status = HeaderParser(json).Parse(header);
  if (status.ok()) {
    status = RefuseDuplicates(entries);
  }
  if (status.ok()) {
    const auto lies_before = [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
      return std::pair(a.begin_bytes, a.bytes) < std::pair(b.begin_bytes, b.bytes);
    };
    if (!std::is_sorted(entries.begin(), entries.end(), lies_before)) {  // Most files are.
      std::stable_sort(entries.begin(), entries.end(), lies_before);
    }
    status = CheckLayout(entries, file_bytes - data_begin);
  }
  if (!status.ok()) {
    return Malformed(file_name, status.message());
  }
  for (SafetensorsEntry& entry : entries) {
    entry.begin_bytes += data_begin;
  }
  return header;
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(absl::string_view file_name,
                                                        const ReadOnlyFile& file) {
  const absl::StatusOr<FileIdentity> identity = file.Identify();
  if (!identity.ok()) {
    return identity.status();
  }
  const int64_t file_bytes = identity->bytes;
  if (file_bytes < kSafetensorsLengthBytes) {
    return Malformed(file_name, absl::StrCat("expected a safetensors file of at least 8 bytes, ",
                                             "found ", file_bytes));
  }
  std::array<unsigned char, kSafetensorsLengthBytes> word;
  if (absl::Status read = file.Read(0, std::as_writable_bytes(std::span(word))); !read.ok()) {
    return read;
  }
  uint64_t header_bytes = 0;
  for (size_t i = word.size(); i-- > 0;) {
    header_bytes = header_bytes << 8 | word[i];
  }
  if (header_bytes > static_cast<uint64_t>(kSafetensorsHeaderBytesMax)) {
    return Malformed(file_name,
                     absl::StrCat("expected a header of at most ", kSafetensorsHeaderBytesMax,
                                  " bytes, found ", header_bytes));
  }
  if (header_bytes > static_cast<uint64_t>(file_bytes - kSafetensorsLengthBytes)) {
    return Malformed(file_name,
                     absl::StrCat("expected a header of ", header_bytes, " bytes, found ",
                                  file_bytes - kSafetensorsLengthBytes, " in the file"));
  }
  // The only allocation whose size a few bytes of the file decide.
  const std::unique_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[header_bytes]);
  if (buffer == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(file_name, ": no memory for a header of ", header_bytes, " bytes"));
  }
  const std::span<std::byte> bytes(buffer.get(), header_bytes);
  if (absl::Status read = file.Read(kSafetensorsLengthBytes, bytes); !read.ok()) {
    return read;
  }
  const absl::string_view json(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return ParseSafetensorsHeader(file_name, json, file_bytes);
}

}  // namespace nibble
