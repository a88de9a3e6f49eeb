#include "server/engine/step_buffers.h"

#include <algorithm>

#include "kernels/sample_ops.h"
#include "server/engine/sampling_options.h"

namespace nibble {
namespace {

StepInputSpans TakeInputs(const StepLimits& limits, MemoryLayout& layout) {
  const StepInputLayout places(limits);
  StepInputSpans inputs;
  inputs.all = layout.TakeFloats(places.count);
  if (inputs.all.empty()) {
    return inputs;
  }
  const auto slice = [&inputs](int64_t first, int64_t count) {
    return inputs.all.Slice(first * 4, count * 4);
  };
  inputs.live_rows = slice(places.live_rows, 1);
  inputs.live_sequences = slice(places.live_sequences, 1);
  inputs.live_outputs = slice(places.live_outputs, 1);
  inputs.ids = slice(places.ids, limits.rows);
  inputs.positions = slice(places.positions, limits.rows);
  inputs.slots = slice(places.slots, limits.rows);
  inputs.row_sequences = slice(places.row_sequences, limits.rows);
  inputs.first_rows = slice(places.first_rows, limits.sequences);
  inputs.row_counts = slice(places.row_counts, limits.sequences);
  inputs.state_slots = slice(places.state_slots, limits.sequences);
  inputs.output_rows = slice(places.output_rows, limits.outputs);
  inputs.page_tables = slice(places.page_tables, limits.sequences * limits.pages);
  return inputs;
}

}  // namespace

StepInputLayout::StepInputLayout(const StepLimits& limits) {
  int64_t next = 0;
  const auto take = [&next](int64_t numbers) {
    const int64_t first = next;
    next += numbers;
    return first;
  };
  live_rows = take(1);
  live_sequences = take(1);
  live_outputs = take(1);
  ids = take(limits.rows);
  positions = take(limits.rows);
  slots = take(limits.rows);
  row_sequences = take(limits.rows);
  first_rows = take(limits.sequences);
  row_counts = take(limits.sequences);
  state_slots = take(limits.sequences);
  output_rows = take(limits.outputs);
  page_tables = take(limits.sequences * limits.pages);
  count = next;
}

StepBuffers::StepBuffers(const ModelRecipe& recipe, const StepLimits& limits,
                         MemoryLayout& layout) {
  const int64_t rows = limits.rows;
  const int64_t query_size = recipe.head_count * recipe.head_size;
  const int64_t key_value_size = recipe.key_value_head_count * recipe.head_size;
  inputs = TakeInputs(limits, layout);
  samplers = layout.Take(limits.outputs * static_cast<int64_t>(sizeof(SamplerRow)));
  adjustments = layout.Take(AdjustmentsMax(limits) * static_cast<int64_t>(sizeof(LogitAdjustment)));
  masks = layout.TakeFloats(limits.sequences * CeilDivide(recipe.vocabulary_size, int64_t{32}));
  const auto expert_layers = std::count_if(recipe.layers.begin(), recipe.layers.end(),
                                           [](const LayerRecipe& layer) { return layer.experts; });
  expert_tables = layout.Take(expert_layers * 3 * recipe.expert_count *
                              static_cast<int64_t>(sizeof(MatrixPlanes)));
  frequencies =
      layout.TakeFloats(std::ssize(recipe.ropes) * CeilDivide(recipe.head_size, int64_t{2}));
  hidden = layout.TakeFloats(rows * recipe.hidden_size);
  normed = layout.TakeFloats(rows * recipe.hidden_size);
  mixed = layout.TakeFloats(rows * recipe.hidden_size);

  // One mixer or MLP runs at a time: their memory is shared.
  const int64_t mark = layout.Mark();
  projected = layout.TakeFloats(rows * query_size * (recipe.gated_attention ? 2 : 1));
  queries = recipe.gated_attention ? layout.TakeFloats(rows * query_size) : projected;
  keys = layout.TakeFloats(rows * key_value_size);
  values = layout.TakeFloats(rows * key_value_size);
  attended = layout.TakeFloats(rows * query_size);

  layout.Rewind(mark);
  const int64_t value_size = recipe.linear_value_heads * recipe.linear_value_size;
  channels = layout.TakeFloats(rows * recipe.linear_channels());
  convolved = layout.TakeFloats(rows * recipe.linear_channels());
  output_gate = layout.TakeFloats(rows * value_size);
  decay_gate = layout.TakeFloats(rows * recipe.linear_value_heads);
  write_gate = layout.TakeFloats(rows * recipe.linear_value_heads);
  delta = layout.TakeFloats(rows * value_size);

  layout.Rewind(mark);
  gate = layout.TakeFloats(rows * recipe.intermediate_size);
  up = layout.TakeFloats(rows * recipe.intermediate_size);

  layout.Rewind(mark);
  const int64_t slots = rows * recipe.expert_top_k;
  router_logits = layout.TakeFloats(rows * recipe.expert_count);
  experts = layout.TakeFloats(slots);
  expert_weights = layout.TakeFloats(slots);
  expert_gate = layout.TakeFloats(slots * recipe.expert_intermediate_size);
  expert_up = layout.TakeFloats(slots * recipe.expert_intermediate_size);
  expert_down = layout.TakeFloats(slots * recipe.hidden_size);
  const bool has_shared = recipe.shared_expert_size > 0;
  shared_gate = layout.TakeFloats(rows * recipe.shared_expert_size);
  shared_up = layout.TakeFloats(rows * recipe.shared_expert_size);
  shared_router = layout.TakeFloats(has_shared ? rows : 0);
  shared_down = layout.TakeFloats(has_shared ? rows * recipe.hidden_size : 0);

  layout.Rewind(mark);
  outputs = layout.TakeFloats(limits.outputs * recipe.hidden_size);
  logits = layout.TakeFloats(limits.outputs * recipe.vocabulary_size);
  results = layout.Take(limits.outputs * static_cast<int64_t>(sizeof(SampledRow)));
}

int64_t AdjustmentsMax(const StepLimits& limits) {
  return limits.sequences * (limits.context_tokens + kLogitBiasesMax);
}

int64_t WorkspaceBytes(const ModelRecipe& recipe, const StepLimits& limits) {
  MemoryLayout layout;
  const StepBuffers buffers(recipe, limits, layout);
  return layout.bytes();
}

}  // namespace nibble
