// How much device memory serving a model takes beside its weights: the KV cache with the state of
// linear attention, and the workspace of a step. Pure functions of recipe and serving options.

#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "loader/load_spec.h"
#include "server/engine/model_recipe.h"

namespace nibble {

inline constexpr int64_t kContextTokensDefault = 8192;
inline constexpr int64_t kSequencesDefault = 16;
inline constexpr int64_t kPrefillChunkTokensDefault = 512;
inline constexpr int64_t kSequencesMax = 1024;
inline constexpr int64_t kContextTokensMax = int64_t{1} << 22;

// Tokens of a page: small enough that a short sequence wastes little, large enough that a table of
// pages is short.
inline constexpr int64_t kPageTokens = 16;

// What a step is sized for; all of it positive.
struct StepLimits {
  int64_t context_tokens = 0;
  int64_t sequences = 0;  // That run at once.
  int64_t rows = 0;       // Tokens of a step: a chunk of prefill, and one for each sequence.
  int64_t outputs = 0;    // Rows of a step whose logits are wanted.
  int64_t pages = 0;      // Of a sequence.
};

struct ServingSizes {
  StepLimits limits;
  KvType kv_type = KvType::kF16;
  int64_t page_count = 0;       // Of the pool.
  int64_t state_snapshots = 0;  // 0 without linear attention.
  int64_t kv_cache_bytes = 0;   // These two are rounded up to the device's granularity.
  int64_t workspace_bytes = 0;
  int64_t recorded_bytes = 0;  // Of steps that are recorded, at most: part of runtime.

  // States of linear attention: of sequences that run first, then snapshots.
  int64_t state_slots() const { return limits.sequences + state_snapshots; }
};

// Bytes of a page in all layers.
int64_t PageBytes(const ModelRecipe& recipe, KvType type);

// Fills in what `serving` leaves to us: a context of at most 8192 tokens, 16 sequences, a KV cache
// for two full contexts, chunks of 512 tokens.
//
// Errors: INVALID_ARGUMENT for a context beyond the model's, or a KV cache that holds less than one
//   page of a full context, naming the field.
absl::StatusOr<ServingSizes> SizeServing(const ModelRecipe& recipe, const ServingSpec& serving,
                                         const DeviceTraits& traits);

}  // namespace nibble
