// The safetensors format, as strict as its official reader (0.8) and stricter where a file is odd
// rather than useful: duplicate tensor names, entries written as arrays, dtypes as objects, a null
// __metadata__, dimensions of 2^63 or more, and more tensors or dimensions than stand below are
// refused.
//
//   bytes 0..7        N, the header's length, unsigned 64-bit little-endian, at most 100 000 000
//   bytes 8..8+N-1    UTF-8 JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...}
//   bytes 8+N..EOF    tensor data, little-endian, row-major, back to back without holes
//
// Source: huggingface/safetensors, safetensors/src/tensor.rs.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/block_format.h"
#include "kernels/f8_format.h"
#include "loader/checkpoint_directory.h"

namespace nibble {

inline constexpr int64_t kSafetensorsLengthBytes = 8;  // Of N.
inline constexpr int64_t kSafetensorsHeaderBytesMax = 100'000'000;

// What a file may declare, so that a hostile header cannot take many times its size in memory: the
// largest models have some 200 000 tensors in all their shards, and numpy arrays 64 dimensions.
inline constexpr size_t kSafetensorsTensorsMax = 1 << 20;
inline constexpr size_t kSafetensorsDimensionsMax = 65'536;

// Metadata entries kept; transformers writes one. Further ones are checked and dropped.
inline constexpr size_t kSafetensorsMetadataCountMax = 65'536;

// In the order of the official reader.
enum class Dtype {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBf16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

int DtypeBits(Dtype dtype);
absl::string_view DtypeName(Dtype dtype);  // "BF16", "F8_E4M3".
std::optional<Dtype> ParseDtype(absl::string_view name);

// The types that can be quantized or used as weights as they are.
std::optional<FloatType> AsFloatType(Dtype dtype);
Dtype DtypeOf(FloatType type);

// The types that can be used once they are multiplied by their scales.
std::optional<F8Type> AsF8Type(Dtype dtype);

struct SafetensorsEntry {
  std::string name;
  Dtype dtype = Dtype::kBf16;
  std::vector<int64_t> shape;
  int64_t begin_bytes = 0;  // From the start of the file (the header's offsets are from 8 + N).
  int64_t bytes = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;                      // By place in the file.
  std::vector<std::pair<std::string, std::string>> metadata;  // Sorted by key.
  std::string digest;                                         // Of the JSON, as it stands.
};

// Parses and validates the JSON of a header whose file has `file_bytes` in all.
//
// Errors: DATA_LOSS, naming `file_name`, the tensor, what was found and expected.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file_name,
                                                         absl::string_view json,
                                                         int64_t file_bytes);

// Reads the header of an open file; no tensor data.
//
// Errors: as above; RESOURCE_EXHAUSTED if there is no memory for the header.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(absl::string_view file_name,
                                                        const ReadOnlyFile& file);

// The bytes that precede the data of a file with `entries`: length word and padded JSON. `entries`
// give name, dtype, shape and bytes, in the order in which their data will be written. The data
// begins at a multiple of 8, as the official writer pads.
//
// Requires: names and metadata are UTF-8; the result is within kSafetensorsHeaderBytesMax.
std::string WriteSafetensorsHeader(
    const std::vector<SafetensorsEntry>& entries,
    const std::vector<std::pair<std::string, std::string>>& metadata);

}  // namespace nibble
