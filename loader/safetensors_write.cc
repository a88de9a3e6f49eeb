// The writing half of safetensors.h.

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/bytes.h"
#include "loader/python_json.h"
#include "loader/safetensors.h"

namespace nibble {
namespace {

// Where the official writer lets the data begin.
constexpr int64_t kDataAlignment = 8;

}  // namespace

std::string WriteSafetensorsHeader(
    const std::vector<SafetensorsEntry>& entries,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::string json = "{";
  absl::string_view separator;
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      absl::StrAppend(&json, separator);
      AppendJsonString(json, key);
      json += ':';
      AppendJsonString(json, value);
      separator = ",";
    }
    json += '}';
  }
  int64_t begin = 0;
  for (const SafetensorsEntry& entry : entries) {
    absl::StrAppend(&json, separator);
    AppendJsonString(json, entry.name);
    absl::StrAppend(&json, ":{\"dtype\":\"", DtypeName(entry.dtype), "\",\"shape\":[",
                    absl::StrJoin(entry.shape, ","), "],\"data_offsets\":[", begin, ",",
                    begin + entry.bytes, "]}");
    begin += entry.bytes;
    separator = ",";
  }
  json += '}';
  // The length word is itself 8 bytes, so padding the JSON aligns the data.
  json.resize(static_cast<size_t>(RoundUp(static_cast<int64_t>(json.size()), kDataAlignment)), ' ');

  std::string header;
  header.reserve(static_cast<size_t>(kSafetensorsLengthBytes) + json.size());
  for (int64_t i = 0; i < kSafetensorsLengthBytes; ++i) {
    header += static_cast<char>(json.size() >> (8 * i));
  }
  return header += json;
}

}  // namespace nibble
