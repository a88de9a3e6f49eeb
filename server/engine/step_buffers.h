// The device memory of a step: its inputs, which the host writes before each step, and what its
// operations hand to one another. All of it lies at fixed places, so that a step can be recorded.

#pragma once

#include <cstdint>

#include "kernels/step_ops.h"
#include "server/engine/memory_layout.h"
#include "server/engine/model_recipe.h"
#include "server/engine/serving_sizes.h"

namespace nibble {

// int32 each, in one run so that one copy brings them all. R rows, S sequences, O outputs, P pages.
struct StepInputSpans {
  DeviceSpan all;
  DeviceSpan live_rows;       // [1]
  DeviceSpan live_sequences;  // [1]
  DeviceSpan live_outputs;    // [1]
  DeviceSpan ids;             // [R]
  DeviceSpan positions;       // [R]
  DeviceSpan slots;           // [R] Of the KV cache.
  DeviceSpan row_sequences;   // [R]
  DeviceSpan first_rows;      // [S]
  DeviceSpan row_counts;      // [S]
  DeviceSpan state_slots;     // [S]
  DeviceSpan output_rows;     // [O]
  DeviceSpan page_tables;     // [S, P]
};

// How many numbers the inputs are, and where each begins among them.
struct StepInputLayout {
  explicit StepInputLayout(const StepLimits& limits);

  int64_t live_rows, live_sequences, live_outputs;
  int64_t ids, positions, slots, row_sequences;
  int64_t first_rows, row_counts, state_slots;
  int64_t output_rows, page_tables;
  int64_t count;
};

// fp32 but where it says otherwise. Letters: H hidden size, I intermediate size, N query heads,
// G key/value heads, D head size, C channels of linear attention, E experts, k of a token.
struct StepBuffers {
  StepBuffers(const ModelRecipe& recipe, const StepLimits& limits, MemoryLayout& layout);

  StepInputSpans inputs;

  // Of sampling, written before the step too.
  DeviceSpan samplers;     // SamplerRow [O]
  DeviceSpan adjustments;  // LogitAdjustment [AdjustmentsMax()]
  DeviceSpan masks;        // uint32 [S, ceil(V / 32)]

  DeviceSpan hidden;  // [R, H]: the residual stream.
  DeviceSpan normed;  // [R, H]
  DeviceSpan mixed;   // [R, H]: what a mixer or an MLP gives.

  // Of attention.
  DeviceSpan projected;  // [R, N, D], or [R, N, 2 D] with a gate.
  DeviceSpan queries;    // [R, N, D]
  DeviceSpan keys;       // [R, G, D]
  DeviceSpan values;     // [R, G, D]
  DeviceSpan attended;   // [R, N, D]

  // Of linear attention.
  DeviceSpan channels;     // [R, C]
  DeviceSpan convolved;    // [R, C]
  DeviceSpan output_gate;  // [R, value heads, value size]
  DeviceSpan decay_gate;   // [R, value heads]
  DeviceSpan write_gate;   // [R, value heads]
  DeviceSpan delta;        // [R, value heads, value size]

  // Of an MLP.
  DeviceSpan gate;  // [R, I]
  DeviceSpan up;    // [R, I]

  // Of experts.
  DeviceSpan router_logits;   // [R, E]
  DeviceSpan experts;         // int32 [R, k]
  DeviceSpan expert_weights;  // [R, k]
  DeviceSpan expert_gate;     // [R, k, I]
  DeviceSpan expert_up;       // [R, k, I]
  DeviceSpan expert_down;     // [R, k, H]
  DeviceSpan shared_gate;     // [R, shared I]
  DeviceSpan shared_up;       // [R, shared I]
  DeviceSpan shared_router;   // [R, 1]
  DeviceSpan shared_down;     // [R, H]
  DeviceSpan expert_tables;   // MatrixPlanes [expert layers, 3, E]

  DeviceSpan frequencies;  // [ropes, D / 2]

  // Of the head.
  DeviceSpan outputs;  // [O, H]
  DeviceSpan logits;   // [O, V]

  DeviceSpan results;  // SampledRow [O]
};

// Penalties of every token of every sequence, and its biases.
int64_t AdjustmentsMax(const StepLimits& limits);

int64_t WorkspaceBytes(const ModelRecipe& recipe, const StepLimits& limits);

}  // namespace nibble
