#include "loader/cache_manifest.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "loader/checksum.h"
#include "loader/json_reader.h"
#include "loader/name_map.h"
#include "loader/printable.h"
#include "loader/python_json.h"

namespace nibble {
namespace {

// Bounds for what a manifest takes in memory, those of checkpoints and plans: 10 000 shards and the
// files beside them, 2^20 tensors, 2^20 parts.
constexpr size_t kFileCountMax = 16'384;
constexpr size_t kTensorCountMax = size_t{1} << 20;
constexpr size_t kPartCountMax = size_t{1} << 20;
constexpr uint64_t kFileBytesMax = uint64_t{1} << 60;

constexpr std::array<absl::string_view, kPlaneCount> kPlaneNames = {"data", "scales",
                                                                    "scale_maxima"};
constexpr absl::string_view kScaleMeanName = "scale_mean";

static_assert(std::endian::native == std::endian::little, "checksums are stored as they are");

void AppendNumber(std::string& bytes, uint64_t number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
}

uint64_t ReadNumber(absl::string_view bytes) {
  uint64_t number = 0;
  std::memcpy(&number, bytes.data(), sizeof(number));
  return number;
}

uint64_t ChecksumOf(absl::string_view bytes) {
  return Checksum(std::as_bytes(std::span<const char>(bytes.data(), bytes.size())));
}

void AppendPart(std::string& json, const CacheManifest::Part& part) {
  json += '{';
  absl::string_view separator;
  for (const Plane plane : kPlanes) {
    const FileRange& range = part.planes[static_cast<size_t>(plane)];
    if (range.bytes > 0) {
      absl::StrAppend(&json, separator, "\"", kPlaneNames[static_cast<size_t>(plane)], "\":[",
                      range.shard_index, ",", range.offset, ",", range.bytes, "]");
      separator = ",";
    }
  }
  if (const auto bits = std::bit_cast<uint32_t>(part.scale_mean); bits != 0) {
    absl::StrAppend(&json, separator, "\"", kScaleMeanName, "\":", bits);
  }
  json += '}';
}

// Reads line 2. The first error sticks in the reader, as everywhere.
class ManifestParser {
 public:
  ManifestParser(absl::string_view json, CacheManifest& manifest)
      : reader_(json, {}), manifest_(manifest) {}

  absl::Status Parse() {
    reader_.EnterObject();
    Expect("files");
    reader_.EnterArray();
    while (reader_.NextElement()) {
      ParseFile();
    }
    Expect("tensors");
    reader_.EnterArray();
    while (reader_.NextElement()) {
      ParseTensor();
    }
    ExpectEnd();
    reader_.Finish();
    return reader_.status();
  }

 private:
  // Members stand in one order, as they are written.
  void Expect(absl::string_view name) {
    std::string key;
    if (!reader_.NextMember(key) || key != name) {
      reader_.Refuse(absl::StrCat("expected ", name));
    }
  }

  void ExpectEnd() {
    std::string key;
    if (reader_.NextMember(key)) {
      reader_.Refuse("expected no more members");
    }
  }

  int64_t ReadBytes() {
    uint64_t value = 0;
    if (reader_.ReadUnsigned(value) && value > kFileBytesMax) {
      reader_.Refuse(absl::StrCat("expected at most ", kFileBytesMax));
    }
    return static_cast<int64_t>(value);
  }

  void ParseFile() {
    if (manifest_.files.size() == kFileCountMax) {
      reader_.Refuse(absl::StrCat("expected at most ", kFileCountMax, " files"));
      return;
    }
    CacheManifest::File& file = manifest_.files.emplace_back();
    reader_.EnterObject();
    Expect("name");
    if (reader_.ReadString(file.name) &&
        (!IsPlainFileName(file.name) || file.name == kManifestFileName ||
         !names_.insert(file.name).second)) {
      reader_.Refuse("expected the name of another plain file");
    }
    Expect("bytes");
    file.bytes = ReadBytes();
    Expect("rest");
    if (reader_.ReadString(file.rest_digest) && !IsDigest(file.rest_digest)) {
      reader_.Refuse("expected a digest");
    }
    ExpectEnd();
  }

  void ParseTensor() {
    if (manifest_.tensors.size() == kTensorCountMax) {
      reader_.Refuse(absl::StrCat("expected at most ", kTensorCountMax, " tensors"));
      return;
    }
    CacheManifest::Tensor& tensor = manifest_.tensors.emplace_back();
    reader_.EnterObject();
    Expect("name");
    reader_.ReadString(tensor.name);
    Expect("parts");
    reader_.EnterArray();
    while (reader_.NextElement()) {
      if (part_count_++ == kPartCountMax) {
        reader_.Refuse(absl::StrCat("expected at most ", kPartCountMax, " parts"));
        return;
      }
      ParsePart(tensor.parts.emplace_back());
    }
    ExpectEnd();
  }

  void ParsePart(CacheManifest::Part& part) {
    reader_.EnterObject();
    std::string key;
    size_t next = 0;  // The first plane that may still come; behind them all stands the mean.
    while (reader_.NextMember(key)) {
      const auto found = std::find(kPlaneNames.begin(), kPlaneNames.end(), key);
      const auto index = static_cast<size_t>(found - kPlaneNames.begin());
      const bool known = index < kPlaneNames.size() || key == kScaleMeanName;
      if (!known || index < next) {
        reader_.Refuse("expected data, scales, scale_maxima, scale_mean, in this order");
        return;
      }
      next = index + 1;
      if (index < kPlaneNames.size()) {
        ParseRange(part.planes[index]);
      } else {
        ParseScaleMean(part.scale_mean);
      }
    }
  }

  void ParseRange(FileRange& range) {
    uint64_t file_index = 0;
    reader_.EnterArray();
    NextOf("the file's index");
    if (reader_.ReadUnsigned(file_index) && file_index >= manifest_.files.size()) {
      reader_.Refuse("expected the index of a file");
      return;
    }
    range.shard_index = static_cast<int>(file_index);
    NextOf("an offset");
    range.offset = ReadBytes();
    NextOf("a number of bytes");
    range.bytes = ReadBytes();
    if (reader_.NextElement()) {
      reader_.Refuse("expected three numbers");
    }
    if (!reader_.status().ok()) {
      return;
    }
    const int64_t file_bytes = manifest_.files[file_index].bytes;
    if (range.bytes == 0 || range.bytes > file_bytes || range.offset > file_bytes - range.bytes) {
      reader_.Refuse(absl::StrCat("expected a range within ", file_bytes, " bytes"));
    }
  }

  void NextOf(absl::string_view what) {
    if (!reader_.NextElement()) {
      reader_.Refuse(absl::StrCat("expected ", what));
    }
  }

  void ParseScaleMean(float& mean) {
    uint64_t bits = 0;
    if (reader_.ReadUnsigned(bits) && (bits == 0 || bits > UINT32_MAX)) {
      reader_.Refuse("expected the bits of an fp32 number but 0");
    }
    mean = std::bit_cast<float>(static_cast<uint32_t>(bits));
  }

  JsonReader reader_;
  CacheManifest& manifest_;
  NameSet names_;
  size_t part_count_ = 0;
};

absl::Status CheckNoOverlap(const CacheManifest& manifest) {
  for (const std::vector<FileRange>& ranges : RangesByFile(manifest)) {
    int64_t end = 0;
    for (const FileRange& range : ranges) {
      if (range.offset < end) {
        return absl::DataLossError(absl::StrCat("expected planes side by side, found two at byte ",
                                                range.offset, " of file ", range.shard_index));
      }
      end = range.offset + range.bytes;
    }
  }
  return absl::OkStatus();
}

int64_t TotalPieceCount(const CacheManifest& manifest) {
  int64_t count = 0;
  for (const CacheManifest::Tensor& tensor : manifest.tensors) {
    for (const CacheManifest::Part& part : tensor.parts) {
      for (const FileRange& range : part.planes) {
        count += PieceCount(range.bytes);
      }
    }
  }
  return count;
}

// Cuts the next line off `bytes`; its end may not be missing.
absl::StatusOr<absl::string_view> TakeLine(absl::string_view& bytes) {
  const size_t end = bytes.find('\n');
  if (end == bytes.npos) {
    return absl::DataLossError("expected two lines of text");
  }
  const absl::string_view line = bytes.substr(0, end);
  bytes.remove_prefix(end + 1);
  return line;
}

}  // namespace

std::string WriteCacheManifest(const CacheManifest& manifest) {
  std::string bytes = absl::StrCat(manifest.key, "\n{\"files\":[");
  absl::string_view separator;
  for (const CacheManifest::File& file : manifest.files) {
    absl::StrAppend(&bytes, separator, "{\"name\":");
    AppendJsonString(bytes, file.name);
    absl::StrAppend(&bytes, ",\"bytes\":", file.bytes, ",\"rest\":\"", file.rest_digest, "\"}");
    separator = ",";
  }
  bytes += "],\"tensors\":[";
  separator = "";
  for (const CacheManifest::Tensor& tensor : manifest.tensors) {
    absl::StrAppend(&bytes, separator, "{\"name\":");
    AppendJsonString(bytes, tensor.name);
    bytes += ",\"parts\":[";
    absl::string_view part_separator;
    for (const CacheManifest::Part& part : tensor.parts) {
      absl::StrAppend(&bytes, part_separator);
      AppendPart(bytes, part);
      part_separator = ",";
    }
    bytes += "]}";
    separator = ",";
  }
  bytes += "]}\n";
  for (const uint64_t checksum : manifest.checksums) {
    AppendNumber(bytes, checksum);
  }
  AppendNumber(bytes, ChecksumOf(bytes));
  return bytes;
}

absl::StatusOr<CacheManifest> ParseCacheManifest(absl::string_view bytes) {
  if (bytes.size() < sizeof(uint64_t) || std::ssize(bytes) > kManifestBytesMax) {
    return absl::DataLossError(
        absl::StrCat("expected 8 to ", kManifestBytesMax, " bytes, found ", bytes.size()));
  }
  const uint64_t expected = ReadNumber(bytes.substr(bytes.size() - sizeof(uint64_t)));
  bytes.remove_suffix(sizeof(uint64_t));
  if (const uint64_t found = ChecksumOf(bytes); found != expected) {
    return absl::DataLossError(absl::StrCat("expected the checksum ",
                                            absl::Hex(expected, absl::kZeroPad16), ", found ",
                                            absl::Hex(found, absl::kZeroPad16)));
  }
  const absl::StatusOr<absl::string_view> key = TakeLine(bytes);
  const absl::StatusOr<absl::string_view> json = TakeLine(bytes);
  if (!json.ok()) {  // Nor is the second line there without the first.
    return json.status();
  }
  CacheManifest manifest;
  manifest.key = std::string(*key);
  absl::Status status = ManifestParser(*json, manifest).Parse();
  status.Update(status.ok() ? CheckNoOverlap(manifest) : absl::OkStatus());
  if (!status.ok()) {
    return status;
  }
  const int64_t count = TotalPieceCount(manifest);
  if (std::ssize(bytes) % int64_t{sizeof(uint64_t)} != 0 ||
      std::ssize(bytes) / int64_t{sizeof(uint64_t)} != count) {
    return absl::DataLossError(
        absl::StrCat("expected ", count, " checksums, found ", bytes.size(), " bytes"));
  }
  manifest.checksums.reserve(static_cast<size_t>(count));
  for (; !bytes.empty(); bytes.remove_prefix(sizeof(uint64_t))) {
    manifest.checksums.push_back(ReadNumber(bytes));
  }
  return manifest;
}

std::vector<std::vector<FileRange>> RangesByFile(const CacheManifest& manifest) {
  std::vector<std::vector<FileRange>> ranges(manifest.files.size());
  for (const CacheManifest::Tensor& tensor : manifest.tensors) {
    for (const CacheManifest::Part& part : tensor.parts) {
      for (const FileRange& range : part.planes) {
        if (range.bytes > 0) {
          ranges[static_cast<size_t>(range.shard_index)].push_back(range);
        }
      }
    }
  }
  for (std::vector<FileRange>& of_file : ranges) {
    std::sort(of_file.begin(), of_file.end(), [](const FileRange& a, const FileRange& b) {
      return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
    });
  }
  return ranges;
}

}  // namespace nibble
