#include "server/engine/serving_sizes.h"

#include <algorithm>
#include <bit>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/bytes.h"
#include "kernels/error_details.h"
#include "server/engine/kv_memory.h"
#include "server/engine/step_buffers.h"

namespace nibble {
namespace {

// Logits are wanted for one row of each sequence; more of them make scoring a text faster.
constexpr int64_t kOutputsMin = 64;

KvType TypeOf(KvCacheType type) {
  switch (type) {
    case KvCacheType::kF16:
      return KvType::kF16;
    case KvCacheType::kBf16:
      return KvType::kBf16;
    case KvCacheType::kF32:
      return KvType::kF32;
  }
  return KvType::kF16;
}

// More than any layer queues, and than what stands before and behind the layers.
constexpr int64_t kLayerOperationsMax = 32;

// The steps that only decode, one for each bucket of sequences.
int64_t RecordedBytes(const ModelRecipe& recipe, const StepLimits& limits,
                      const DeviceTraits& traits) {
  const int64_t buckets = std::bit_width(static_cast<uint64_t>(limits.sequences - 1)) + 1;
  const int64_t operations = (std::ssize(recipe.layers) + 1) * kLayerOperationsMax;
  return buckets * operations * traits.recorded_operation_bytes;
}

absl::Status Refuse(const char* field, int64_t min, int64_t max, int64_t found) {
  const std::string name = absl::StrCat("serving.", field);
  return BadField(name, absl::StrCat("expected ", min, " to ", max, ", found ", found));
}

absl::StatusOr<StepLimits> LimitsOf(const ModelRecipe& recipe, const ServingSpec& serving) {
  const int64_t context_max = recipe.context_tokens > 0 ? recipe.context_tokens : kContextTokensMax;
  StepLimits limits;
  limits.context_tokens = serving.max_context_tokens > 0
                              ? serving.max_context_tokens
                              : std::min(context_max, kContextTokensDefault);
  if (limits.context_tokens > std::min(context_max, kContextTokensMax)) {
    return Refuse("max_context_tokens", 1, std::min(context_max, kContextTokensMax),
                  limits.context_tokens);
  }
  limits.sequences = serving.max_sequences > 0 ? serving.max_sequences : kSequencesDefault;
  if (limits.sequences > kSequencesMax) {
    return Refuse("max_sequences", 1, kSequencesMax, limits.sequences);
  }
  const int64_t chunk =
      serving.prefill_chunk_tokens > 0 ? serving.prefill_chunk_tokens : kPrefillChunkTokensDefault;
  limits.rows = std::min(chunk, limits.context_tokens) + limits.sequences;
  limits.outputs = std::max(limits.sequences, std::min(kOutputsMin, limits.rows));
  limits.pages = CeilDivide(limits.context_tokens, kPageTokens);
  return limits;
}

}  // namespace

absl::StatusOr<ServingSizes> SizeServing(const ModelRecipe& recipe, const ServingSpec& serving,
                                         const DeviceTraits& traits) {
  absl::StatusOr<StepLimits> limits = LimitsOf(recipe, serving);
  if (!limits.ok()) {
    return limits.status();
  }
  ServingSizes sizes;
  sizes.limits = *limits;
  sizes.kv_type = TypeOf(serving.kv_cache_type);
  if (serving.state_snapshots > 0 && recipe.linear_layer_count() == 0) {
    return BadField("serving.state_snapshots",
                    absl::StrCat("expected 0: the model has no linear attention, and prompts that "
                                 "begin alike share pages anyway; found ",
                                 serving.state_snapshots));
  }
  sizes.state_snapshots = serving.state_snapshots;
  const int64_t page_bytes = PageBytes(recipe, sizes.kv_type);
  const int64_t state_bytes = KvStateBytes(recipe, sizes.state_slots());
  if (serving.kv_cache_bytes > 0) {
    const int64_t least = state_bytes + KvPoolBytes(recipe, sizes.kv_type, limits->pages);
    if (serving.kv_cache_bytes < least) {
      return absl::InvalidArgumentError(
          absl::StrCat("serving.kv_cache_bytes: expected at least ", least, ", for one context of ",
                       limits->context_tokens, " tokens, found ", serving.kv_cache_bytes));
    }
    sizes.page_count = page_bytes == 0
                           ? limits->pages * limits->sequences
                           : limits->pages + (serving.kv_cache_bytes - least) / page_bytes;
  } else {
    sizes.page_count = page_bytes == 0 ? limits->pages * limits->sequences : 2 * limits->pages;
  }
  sizes.kv_cache_bytes = RoundUp(state_bytes + KvPoolBytes(recipe, sizes.kv_type, sizes.page_count),
                                 traits.granularity_bytes);
  sizes.recorded_bytes = RecordedBytes(recipe, *limits, traits);
  sizes.workspace_bytes = RoundUp(WorkspaceBytes(recipe, *limits), traits.granularity_bytes);
  return sizes;
}

}  // namespace nibble
