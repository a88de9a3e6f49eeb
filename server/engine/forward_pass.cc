#include "server/engine/forward_pass.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "kernels/block_quantize_ref.h"

namespace nibble {
namespace {

StepBuffers CutBuffers(const ModelRecipe& recipe, const StepLimits& limits, DeviceSpan workspace) {
  MemoryLayout layout(workspace);
  return StepBuffers(recipe, limits, layout);
}

// The root of the hidden size as the embedding's own type has it.
float EmbeddingScale(const ModelRecipe& recipe, FloatType type) {
  if (!recipe.scaled_embedding) {
    return 1;
  }
  std::array<std::byte, 4> stored;
  StoreElement(type, std::sqrt(static_cast<float>(recipe.hidden_size)), stored.data(), 0);
  return LoadElement(type, stored.data(), 0);
}

// The part of each row's groups from `first` on: queries, keys and values of one projection.
Activations Part(DeviceSpan span, int64_t first, int64_t groups, int64_t width,
                 int64_t row_stride) {
  return {span.Slice(first * 4, span.bytes() - first * 4), width, row_stride, groups, width};
}

}  // namespace

ForwardPass::ForwardPass(Device& device, const ModelRecipe& recipe, ModelWeights weights,
                         const ServingSizes& sizes, const ProductOptions& products,
                         DeviceSpan kv_memory, DeviceSpan workspace)
    : ops_(device.step_ops()),
      recipe_(recipe),
      weights_(std::move(weights)),
      sizes_(sizes),
      products_(products),
      memory_(
          LayOutKvMemory(recipe, sizes.kv_type, sizes.page_count, sizes.state_slots(), kv_memory)),
      buffers_(CutBuffers(recipe, sizes.limits, workspace)) {}

DeviceSpan ForwardPass::ExpertTable(size_t layer, int which) const {
  const auto place = std::count_if(recipe_.layers.begin(),
                                   recipe_.layers.begin() + static_cast<std::ptrdiff_t>(layer),
                                   [](const LayerRecipe& recipe) { return recipe.experts; });
  const int64_t bytes = recipe_.expert_count * static_cast<int64_t>(sizeof(MatrixPlanes));
  return buffers_.expert_tables.Slice((place * 3 + which) * bytes, bytes);
}

absl::Status ForwardPass::Prepare(Queue& queue) {
  absl::Status status;
  const int64_t stride = CeilDivide(recipe_.head_size, int64_t{2});
  for (size_t index = 0; index < recipe_.ropes.size(); ++index) {
    const std::vector<float>& frequencies = recipe_.ropes[index].frequencies;
    status.Update(
        queue.CopyToDevice(std::as_bytes(std::span(frequencies)),
                           buffers_.frequencies.Slice(static_cast<int64_t>(index) * stride * 4,
                                                      std::ssize(frequencies) * 4)));
  }
  for (size_t index = 0; index < recipe_.layers.size(); ++index) {
    if (recipe_.layers[index].experts) {
      const ExpertsWeights& experts = weights_.layers[index].experts;
      int which = 0;
      for (const ExpertWeights* matrices : {&experts.gate, &experts.up, &experts.down}) {
        status.Update(queue.CopyToDevice(std::as_bytes(std::span(matrices->planes)),
                                         ExpertTable(index, which++)));
      }
    }
  }
  status.Update(queue.Synchronize());
  return status;
}

absl::Status ForwardPass::QueueStep(Queue& queue, const StepBounds& bounds) {
  const StepInputSpans& inputs = buffers_.inputs;
  const Step step = {queue,
                     {bounds.rows, inputs.live_rows},
                     {bounds.sequences, inputs.live_sequences, inputs.first_rows, inputs.row_counts,
                      inputs.state_slots, inputs.positions},
                     {bounds.outputs, inputs.live_outputs}};
  absl::Status status =
      ops_.Embed(queue, {.rows = step.rows,
                         .table = weights_.embedding,
                         .ids = inputs.ids,
                         .scale = EmbeddingScale(recipe_, weights_.embedding_type),
                         .target = DenseRows(buffers_.hidden, recipe_.hidden_size)});
  status.Update(ops_.Norm(queue, NormArgsOf(step, weights_.layers.front().input_norm,
                                            buffers_.hidden, buffers_.normed)));
  for (size_t index = 0; status.ok() && index < recipe_.layers.size(); ++index) {
    status = QueueLayer(step, index);
  }
  return status.ok() ? QueueHead(step) : status;
}

absl::Status ForwardPass::QueueSampledStep(Queue& queue, const StepBounds& bounds) {
  absl::Status status = QueueStep(queue, bounds);
  if (!status.ok()) {
    return status;
  }
  return ops_.Sample(queue, {.rows = {bounds.outputs, buffers_.inputs.live_outputs},
                             .logits = DenseRows(buffers_.logits, recipe_.vocabulary_size),
                             .samplers = buffers_.samplers,
                             .adjustments = buffers_.adjustments,
                             .masks = buffers_.masks,
                             .results = buffers_.results});
}

absl::Status ForwardPass::QueueStateCopy(Queue& queue, int32_t from, int32_t to) {
  absl::Status status;
  for (const LayerMemory& layer : memory_) {
    for (const DeviceSpan& states : {layer.convolution_state, layer.delta_state}) {
      if (!states.empty()) {
        const int64_t bytes = states.bytes() / sizes_.state_slots();
        status.Update(
            queue.CopyOnDevice(states.Slice(from * bytes, bytes), states.Slice(to * bytes, bytes)));
      }
    }
  }
  return status;
}

absl::Status ForwardPass::QueueLayer(const Step& step, size_t index) {
  const LayerRecipe& recipe = recipe_.layers[index];
  const LayerWeights& layer = weights_.layers[index];
  absl::Status status =
      recipe.linear_attention ? QueueLinearAttention(step, index) : QueueAttention(step, index);
  if (recipe_.sandwich_norms) {
    status.Update(ops_.Norm(
        step.queue, NormArgsOf(step, layer.attention_output_norm, buffers_.mixed, buffers_.mixed)));
  }
  status.Update(AddToHidden(step, recipe_.parallel_block ? nullptr : &layer.mlp_norm));
  status.Update(recipe.experts
                    ? QueueExperts(step, index)
                    : QueueMlp(step, layer.mlp, buffers_.gate, buffers_.up, buffers_.mixed));
  if (recipe_.sandwich_norms) {
    status.Update(ops_.Norm(
        step.queue, NormArgsOf(step, layer.mlp_output_norm, buffers_.mixed, buffers_.mixed)));
  }
  const bool is_last = index + 1 == recipe_.layers.size();
  status.Update(AddToHidden(step, is_last ? nullptr : &weights_.layers[index + 1].input_norm));
  return status;
}

absl::Status ForwardPass::QueueHeadNorms(const Step& step, const AttentionWeights& weights,
                                         const Activations& queries) {
  const Activations keys =
      DenseGroups(buffers_.keys, recipe_.key_value_head_count, recipe_.head_size);
  absl::Status status = ops_.Norm(
      step.queue, {.rows = step.rows,
                   .kind = recipe_.norm,
                   .epsilon = recipe_.epsilon,
                   .weight = weights.query_norm,
                   .source = queries,
                   .target = DenseGroups(buffers_.queries, recipe_.head_count, recipe_.head_size)});
  status.Update(ops_.Norm(step.queue, {.rows = step.rows,
                                       .kind = recipe_.norm,
                                       .epsilon = recipe_.epsilon,
                                       .weight = weights.key_norm,
                                       .source = keys,
                                       .target = keys}));
  return status;
}

absl::Status ForwardPass::QueueRopeStoreKv(const Step& step, size_t index) {
  const LayerRecipe& recipe = recipe_.layers[index];
  const int64_t size = recipe_.head_size;
  const RopeFrequencies& rope = recipe_.ropes[static_cast<size_t>(recipe.rope_index)];
  const auto count = std::ssize(rope.frequencies);
  const Activations keys = DenseGroups(buffers_.keys, recipe_.key_value_head_count, size);
  const auto rope_of = [&](const Activations& heads) -> RopeArgs {
    return {.rows = step.rows,
            .positions = buffers_.inputs.positions,
            .frequencies = buffers_.frequencies.Slice(
                recipe.rope_index * CeilDivide(size, int64_t{2}) * 4, count * 4),
            .frequency_count = count,
            .interleaved = recipe_.interleaved_rope,
            .magnitude = rope.magnitude,
            .heads = heads};
  };
  return ops_.RopeStoreKv(
      step.queue,
      {.queries = rope_of(DenseGroups(buffers_.queries, recipe_.head_count, size)),
       .keys = rope_of(keys),
       .store = {.rows = step.rows,
                 .keys = keys,
                 .values = DenseGroups(buffers_.values, recipe_.key_value_head_count, size),
                 .slots = buffers_.inputs.slots,
                 .cache = memory_[index].cache}});
}

absl::Status ForwardPass::QueueAttention(const Step& step, size_t index) {
  const LayerRecipe& recipe = recipe_.layers[index];
  const AttentionWeights& weights = weights_.layers[index].attention;
  const int64_t size = recipe_.head_size;
  const int64_t stride = recipe_.gated_attention ? 2 * size : size;
  const Activations normed = DenseRows(buffers_.normed, recipe_.hidden_size);
  const Activations projected = {buffers_.projected, size, recipe_.head_count * stride,
                                 recipe_.head_count, stride};
  const Activations queries = DenseGroups(buffers_.queries, recipe_.head_count, size);
  const Activations attended = DenseGroups(buffers_.attended, recipe_.head_count, size);
  const StepInputSpans& inputs = buffers_.inputs;

  absl::Status status = ops_.LinearSet(
      step.queue, std::array{LinearArgsOf(step, weights.query, normed, buffers_.projected),
                             LinearArgsOf(step, weights.key, normed, buffers_.keys),
                             LinearArgsOf(step, weights.value, normed, buffers_.values)});
  if (recipe_.query_key_norm) {
    status.Update(QueueHeadNorms(step, weights, projected));
  }
  status.Update(QueueRopeStoreKv(step, index));
  status.Update(ops_.Attention(step.queue, {.rows = step.rows,
                                            .queries = queries,
                                            .cache = memory_[index].cache,
                                            .page_tokens = kPageTokens,
                                            .pages_max = sizes_.limits.pages,
                                            .page_tables = inputs.page_tables,
                                            .row_sequences = inputs.row_sequences,
                                            .positions = inputs.positions,
                                            .scale = recipe_.attention_scale,
                                            .softcap = recipe_.attention_softcap,
                                            .window = recipe.window,
                                            .target = attended,
                                            .batch_invariant = products_.batch_invariant}));
  if (recipe_.gated_attention) {
    Activations gate = projected;
    gate.span = gate.span.Slice(size * 4, gate.span.bytes() - size * 4);
    status.Update(ops_.Gate(step.queue, {.rows = step.rows,
                                         .activation = Activation::kSigmoid,
                                         .gate = gate,
                                         .value = attended,
                                         .target = attended}));
  }
  status.Update(Linear(step, weights.output,
                       DenseRows(buffers_.attended, recipe_.head_count * size), buffers_.mixed));
  return status;
}

absl::Status ForwardPass::QueueLinearAttention(const Step& step, size_t index) {
  const LinearAttentionWeights& weights = weights_.layers[index].linear_attention;
  const LayerMemory& memory = memory_[index];
  const int64_t slot_count = sizes_.state_slots();
  const int64_t channels = recipe_.linear_channels();
  const int64_t key_size = recipe_.linear_key_heads * recipe_.linear_key_size;
  const int64_t heads = recipe_.linear_value_heads;
  const int64_t value_size = recipe_.linear_value_size;
  const Activations normed = DenseRows(buffers_.normed, recipe_.hidden_size);
  const Activations delta = DenseGroups(buffers_.delta, heads, value_size);

  absl::Status status = ops_.LinearSet(
      step.queue,
      std::array{LinearArgsOf(step, weights.query_key_value, normed, buffers_.channels),
                 LinearArgsOf(step, weights.output_gate, normed, buffers_.output_gate)});
  status.Update(ops_.LinearSet(
      step.queue, std::array{LinearArgsOf(step, weights.decay_gate, normed, buffers_.decay_gate),
                             LinearArgsOf(step, weights.write_gate, normed, buffers_.write_gate)}));
  status.Update(
      ops_.ShortConvolution(step.queue, {.rows = step.rows,
                                         .sequences = step.sequences,
                                         .taps = recipe_.linear_taps,
                                         .weight = weights.convolution,
                                         .source = DenseRows(buffers_.channels, channels),
                                         .target = DenseRows(buffers_.convolved, channels),
                                         .slot_count = slot_count,
                                         .state = memory.convolution_state}));
  const auto part = [this, channels](int64_t first, int64_t groups, int64_t width) {
    return Part(buffers_.convolved, first, groups, width, channels);
  };
  status.Update(ops_.DeltaRule(
      step.queue, {.rows = step.rows,
                   .sequences = step.sequences,
                   .key_heads = recipe_.linear_key_heads,
                   .value_heads = heads,
                   .key_size = recipe_.linear_key_size,
                   .value_size = value_size,
                   .queries = part(0, recipe_.linear_key_heads, recipe_.linear_key_size),
                   .keys = part(key_size, recipe_.linear_key_heads, recipe_.linear_key_size),
                   .values = part(2 * key_size, heads, value_size),
                   .decay_gate = DenseRows(buffers_.decay_gate, heads),
                   .write_gate = DenseRows(buffers_.write_gate, heads),
                   .decay = weights.decay,
                   .bias = weights.bias,
                   .target = delta,
                   .slot_count = slot_count,
                   .state = memory.delta_state}));
  // This norm has plain weights, whatever the others have.
  status.Update(ops_.Norm(step.queue, {.rows = step.rows,
                                       .kind = NormKind::kRms,
                                       .epsilon = recipe_.epsilon,
                                       .weight = weights.norm,
                                       .source = delta,
                                       .target = delta}));
  status.Update(ops_.Gate(step.queue, {.rows = step.rows,
                                       .activation = Activation::kSilu,
                                       .gate = DenseGroups(buffers_.output_gate, heads, value_size),
                                       .value = delta,
                                       .target = delta}));
  status.Update(
      Linear(step, weights.output, DenseRows(buffers_.delta, heads * value_size), buffers_.mixed));
  return status;
}

absl::Status ForwardPass::QueueMlp(const Step& step, const MlpWeights& weights, DeviceSpan gate,
                                   DeviceSpan up, DeviceSpan target) {
  const Activations normed = DenseRows(buffers_.normed, recipe_.hidden_size);
  const int64_t size = weights.gate.matrix.shape.rows;
  absl::Status status =
      ops_.LinearSet(step.queue, std::array{LinearArgsOf(step, weights.gate, normed, gate),
                                            LinearArgsOf(step, weights.up, normed, up)});
  status.Update(ops_.Gate(step.queue, {.rows = step.rows,
                                       .activation = recipe_.activation,
                                       .gate = DenseRows(gate, size),
                                       .value = DenseRows(up, size),
                                       .target = DenseRows(gate, size)}));
  status.Update(Linear(step, weights.down, DenseRows(gate, size), target));
  return status;
}

absl::Status ForwardPass::QueueExperts(const Step& step, size_t index) {
  const ExpertsWeights& weights = weights_.layers[index].experts;
  const int64_t top_k = recipe_.expert_top_k;
  const int64_t hidden = recipe_.hidden_size;
  const int64_t size = recipe_.expert_intermediate_size;
  const Activations normed = DenseRows(buffers_.normed, hidden);
  const Activations gate = DenseGroups(buffers_.expert_gate, top_k, size);
  const Activations up = DenseGroups(buffers_.expert_up, top_k, size);
  const Activations down = DenseGroups(buffers_.expert_down, top_k, hidden);
  const auto multiply = [&](const ExpertWeights& matrices, int which, const Activations& source,
                            const Activations& target) {
    return ops_.ExpertLinear(step.queue, {.rows = step.rows,
                                          .shape = matrices.shape,
                                          .expert_count = recipe_.expert_count,
                                          .table = ExpertTable(index, which),
                                          .top_k = top_k,
                                          .experts = buffers_.experts,
                                          .source = source,
                                          .target = target,
                                          .products = products_});
  };
  absl::Status status = Linear(step, weights.router, normed, buffers_.router_logits);
  status.Update(
      ops_.Route(step.queue, {.rows = step.rows,
                              .logits = DenseRows(buffers_.router_logits, recipe_.expert_count),
                              .top_k = top_k,
                              .renormalize = recipe_.renormalize_experts,
                              .experts = buffers_.experts,
                              .weights = buffers_.expert_weights}));
  status.Update(multiply(weights.gate, 0, normed, gate));
  status.Update(multiply(weights.up, 1, normed, up));
  status.Update(ops_.Gate(step.queue, {.rows = step.rows,
                                       .activation = recipe_.activation,
                                       .gate = gate,
                                       .value = up,
                                       .target = gate}));
  status.Update(multiply(weights.down, 2, gate, down));
  status.Update(ops_.CombineExperts(step.queue, {.rows = step.rows,
                                                 .top_k = top_k,
                                                 .weights = buffers_.expert_weights,
                                                 .source = down,
                                                 .target = DenseRows(buffers_.mixed, hidden)}));
  if (recipe_.shared_expert_size == 0) {
    return status;
  }
  const Activations shared = DenseRows(buffers_.shared_down, hidden);
  status.Update(QueueMlp(step, weights.shared, buffers_.shared_gate, buffers_.shared_up,
                         buffers_.shared_down));
  status.Update(Linear(step, weights.shared_router, normed, buffers_.shared_router));
  status.Update(ops_.Gate(step.queue, {.rows = step.rows,
                                       .activation = Activation::kSigmoid,
                                       .gate = DenseRows(buffers_.shared_router, 1),
                                       .value = shared,
                                       .target = shared}));
  status.Update(
      ops_.Add(step.queue,
               {.rows = step.rows, .source = shared, .target = DenseRows(buffers_.mixed, hidden)}));
  return status;
}

absl::Status ForwardPass::QueueHead(const Step& step) {
  const Activations outputs = DenseRows(buffers_.outputs, recipe_.hidden_size);
  const Activations logits = DenseRows(buffers_.logits, recipe_.vocabulary_size);
  absl::Status status =
      ops_.GatherRows(step.queue, {.rows = step.outputs,
                                   .row_indices = buffers_.inputs.output_rows,
                                   .source = DenseRows(buffers_.hidden, recipe_.hidden_size),
                                   .target = outputs});
  status.Update(ops_.Norm(step.queue, {.rows = step.outputs,
                                       .kind = recipe_.norm,
                                       .epsilon = recipe_.epsilon,
                                       .weight = weights_.norm,
                                       .source = outputs,
                                       .target = outputs}));
  status.Update(ops_.Linear(step.queue, {.rows = step.outputs,
                                         .weight = weights_.head.matrix,
                                         .bias = weights_.head.bias,
                                         .source = outputs,
                                         .target = logits,
                                         .products = products_}));
  if (recipe_.logit_scale != 1 || recipe_.logit_softcap != 0) {
    status.Update(ops_.ScaleLogits(step.queue, {.rows = step.outputs,
                                                .scale = recipe_.logit_scale,
                                                .softcap = recipe_.logit_softcap,
                                                .logits = logits}));
  }
  return status;
}

NormArgs ForwardPass::NormArgsOf(const Step& step, const WeightVector& weight, DeviceSpan source,
                                 DeviceSpan target) const {
  return {.rows = step.rows,
          .kind = recipe_.norm,
          .epsilon = recipe_.epsilon,
          .weight = weight,
          .source = DenseRows(source, recipe_.hidden_size),
          .target = DenseRows(target, recipe_.hidden_size)};
}

LinearArgs ForwardPass::LinearArgsOf(const Step& step, const LinearWeights& weights,
                                     const Activations& source, DeviceSpan target) const {
  return {.rows = step.rows,
          .weight = weights.matrix,
          .bias = weights.bias,
          .source = source,
          .target = DenseRows(target, weights.matrix.shape.rows),
          .products = products_};
}

absl::Status ForwardPass::Linear(const Step& step, const LinearWeights& weights,
                                 const Activations& source, DeviceSpan target) {
  return ops_.Linear(step.queue, LinearArgsOf(step, weights, source, target));
}

absl::Status ForwardPass::AddToHidden(const Step& step, const WeightVector* norm) {
  const AddArgs add = {.rows = step.rows,
                       .source = DenseRows(buffers_.mixed, recipe_.hidden_size),
                       .target = DenseRows(buffers_.hidden, recipe_.hidden_size)};
  if (norm == nullptr) {
    return ops_.Add(step.queue, add);
  }
  return ops_.AddNorm(
      step.queue, {.add = add, .norm = NormArgsOf(step, *norm, buffers_.hidden, buffers_.normed)});
}

}  // namespace nibble
