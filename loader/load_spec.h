// What a client asks of a load, in the words of the wire contract: how to quantize, how to serve.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/block_format.h"

namespace nibble {

// What a tensor is stored as in device memory.
enum class Format { kNf4, kFp4, kAsStored };

// "NF4", "FP4", "AS_STORED".
const char* FormatName(Format format);

// Requires: format is not kAsStored.
Codebook CodebookOf(Format format);

struct QuantizationSpec {
  Format format = Format::kNf4;            // For what is quantized; kAsStored quantizes nothing.
  int64_t block_size = kBlockSizeDefault;  // Elements that share a scale; IsBlockSize.
  bool double_quantization = false;        // 8-bit scales.
  std::vector<std::string> keep;           // Globs over tensor names; kept in their own type.
  std::vector<std::string> quantize;       // Globs over tensor names; quantized. `keep` wins.
  bool keep_unquantized_rest = false;      // Of a checkpoint that is 4-bit only in part.
  bool scale_search = false;               // Least squared error, not the largest magnitude.
  bool positive_scales = false;            // With scale_search: no negative ones.
  double min_quantized_ratio = 0;          // 0 to 1; a plan below it is refused.
  bool allow_non_finite = false;
  bool error_stats = false;

  friend bool operator==(const QuantizationSpec&, const QuantizationSpec&) = default;
};

enum class KvCacheType { kF16, kBf16, kF32 };

// 0 means the default of DESIGN: filled in by the plan when there is an engine.
struct ServingSpec {
  int64_t max_context_tokens = 0;
  int64_t max_sequences = 0;
  int64_t kv_cache_bytes = 0;
  KvCacheType kv_cache_type = KvCacheType::kF16;
  int64_t prefill_chunk_tokens = 0;
  bool weights_only = false;
  int64_t state_snapshots = 0;  // Of linear attention, kept for prompts that begin alike.

  friend bool operator==(const ServingSpec&, const ServingSpec&) = default;
};

// Errors: INVALID_ARGUMENT that names the field.
absl::Status Validate(const QuantizationSpec& spec);
absl::Status Validate(const ServingSpec& spec);

}  // namespace nibble
