#include "loader/load_spec.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/check.h"
#include "kernels/error_details.h"
#include "loader/glob.h"

namespace nibble {
namespace {

// Longer than any tensor name we have seen (under 100), and few enough that matching all of them
// against the 20 000 tensors of a large MoE stays in milliseconds.
constexpr size_t kGlobCountMax = 256;
constexpr size_t kGlobBytesMax = 512;

// Bounds that no real request comes near; beyond them the arithmetic of a plan could overflow.
constexpr int64_t kContextTokensMax = int64_t{1} << 27;
constexpr int64_t kSequencesMax = int64_t{1} << 16;
constexpr int64_t kPrefillChunkTokensMax = int64_t{1} << 20;
constexpr int64_t kStateSnapshotsMax = int64_t{1} << 16;
constexpr int64_t kKvCacheBytesMax = int64_t{1} << 50;

absl::Status CheckGlobs(absl::string_view option, const std::vector<std::string>& globs) {
  std::string field = absl::StrCat("quantization.", option);
  if (globs.size() > kGlobCountMax) {
    return BadField(std::move(field), absl::StrCat("expected at most ", kGlobCountMax,
                                                   " globs, found ", globs.size()));
  }
  for (const std::string& glob : globs) {
    if (glob.empty() || glob.size() > kGlobBytesMax) {
      return BadField(std::move(field), absl::StrCat("expected a glob of 1 to ", kGlobBytesMax,
                                                     " bytes, found ", glob.size()));
    }
    if (!IsGlob(glob)) {
      return BadField(std::move(field), absl::StrCat("'", glob, "': `[` without its `]`"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRange(absl::string_view option, int64_t value, int64_t max) {
  if (value < 0 || value > max) {
    return BadField(absl::StrCat("serving.", option),
                    absl::StrCat("expected 0 (the default) to ", max, ", found ", value));
  }
  return absl::OkStatus();
}

}  // namespace

const char* FormatName(Format format) {
  switch (format) {
    case Format::kNf4:
      return "NF4";
    case Format::kFp4:
      return "FP4";
    case Format::kAsStored:
      return "AS_STORED";
  }
  return "";
}

Codebook CodebookOf(Format format) {
  Check(format != Format::kAsStored, "what is in 4 bits has a codebook");
  return format == Format::kFp4 ? Codebook::kFp4 : Codebook::kNf4;
}

absl::Status Validate(const QuantizationSpec& spec) {
  if (!IsBlockSize(spec.block_size)) {
    return BadField("quantization.block_size",
                    absl::StrCat("expected a power of two from ", kBlockSizeMin, " to ",
                                 kBlockSizeMax, ", found ", spec.block_size));
  }
  // Written so that NaN is refused too.
  if (!(spec.min_quantized_ratio >= 0 && spec.min_quantized_ratio <= 1)) {
    return BadField("quantization.min_quantized_ratio",
                    absl::StrCat("expected 0 to 1, found ", spec.min_quantized_ratio));
  }
  absl::Status status = CheckGlobs("keep", spec.keep);
  status.Update(CheckGlobs("quantize", spec.quantize));
  if (!status.ok()) {
    return status;
  }
  if (spec.format == Format::kAsStored && !spec.quantize.empty()) {
    return BadField("quantization.quantize", "AS_STORED quantizes nothing; choose NF4 or FP4");
  }
  if (spec.positive_scales && !spec.scale_search) {
    return BadField("quantization.positive_scales", "is an option of scale_search, which is off");
  }
  return absl::OkStatus();
}

absl::Status Validate(const ServingSpec& spec) {
  absl::Status status =
      CheckRange("max_context_tokens", spec.max_context_tokens, kContextTokensMax);
  status.Update(CheckRange("max_sequences", spec.max_sequences, kSequencesMax));
  status.Update(CheckRange("kv_cache_bytes", spec.kv_cache_bytes, kKvCacheBytesMax));
  status.Update(
      CheckRange("prefill_chunk_tokens", spec.prefill_chunk_tokens, kPrefillChunkTokensMax));
  status.Update(CheckRange("state_snapshots", spec.state_snapshots, kStateSnapshotsMax));
  return status;
}

}  // namespace nibble
