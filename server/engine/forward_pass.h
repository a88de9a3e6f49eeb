// One step of a model: the operations from token ids to logits, queued on the device.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/step_ops.h"
#include "server/engine/kv_memory.h"
#include "server/engine/model_recipe.h"
#include "server/engine/model_weights.h"
#include "server/engine/serving_sizes.h"
#include "server/engine/step_buffers.h"

namespace nibble {

// How much a step is launched for; the inputs say how much of it there is.
struct StepBounds {
  int64_t rows = 0;
  int64_t sequences = 0;
  int64_t outputs = 0;

  friend auto operator<=>(const StepBounds&, const StepBounds&) = default;
};

// Belongs to one thread. What it is given must outlive it.
class ForwardPass {
 public:
  // `kv_memory` and `workspace` are as large as `sizes` says. The recipe is copied.
  ForwardPass(Device& device, const ModelRecipe& recipe, ModelWeights weights,
              const ServingSizes& sizes, const ProductOptions& products, DeviceSpan kv_memory,
              DeviceSpan workspace);

  // Brings what never changes into the workspace: frequencies, tables of experts. Waits for it.
  absl::Status Prepare(Queue& queue);

  // Queues a step, after its inputs. The logits of its outputs are in logits() when it is done.
  absl::Status QueueStep(Queue& queue, const StepBounds& bounds);

  // Queues a step and the choice of a token for each output, after its inputs and samplers.
  absl::Status QueueSampledStep(Queue& queue, const StepBounds& bounds);

  // Queues the copy of one slot's state of linear attention to another.
  absl::Status QueueStateCopy(Queue& queue, int32_t from, int32_t to);

  const StepBuffers& buffers() const { return buffers_; }
  const StepInputSpans& inputs() const { return buffers_.inputs; }
  DeviceSpan logits() const { return buffers_.logits; }  // fp32 [outputs, vocabulary]
  const ModelRecipe& recipe() const { return recipe_; }
  const ServingSizes& sizes() const { return sizes_; }

 private:
  // Of one step that is being queued.
  struct Step {
    Queue& queue;
    RowCount rows;
    StepSequences sequences;
    RowCount outputs;
  };

  // From the normed hidden state to that which the next layer reads.
  absl::Status QueueLayer(const Step& step, size_t index);
  absl::Status QueueAttention(const Step& step, size_t index);
  absl::Status QueueRopeStoreKv(const Step& step, size_t index);
  absl::Status QueueHeadNorms(const Step& step, const AttentionWeights& weights,
                              const Activations& queries);
  absl::Status QueueLinearAttention(const Step& step, size_t index);
  absl::Status QueueMlp(const Step& step, const MlpWeights& weights, DeviceSpan gate, DeviceSpan up,
                        DeviceSpan target);
  absl::Status QueueExperts(const Step& step, size_t index);
  absl::Status QueueHead(const Step& step);

  NormArgs NormArgsOf(const Step& step, const WeightVector& weight, DeviceSpan source,
                      DeviceSpan target) const;
  LinearArgs LinearArgsOf(const Step& step, const LinearWeights& weights, const Activations& source,
                          DeviceSpan target) const;
  absl::Status Linear(const Step& step, const LinearWeights& weights, const Activations& source,
                      DeviceSpan target);
  // Adds `mixed`, and norms the sum if there is a norm.
  absl::Status AddToHidden(const Step& step, const WeightVector* norm);
  DeviceSpan ExpertTable(size_t layer, int which) const;

  StepOps& ops_;
  const ModelRecipe recipe_;
  const ModelWeights weights_;
  const ServingSizes sizes_;
  const ProductOptions products_;
  const std::vector<LayerMemory> memory_;
  const StepBuffers buffers_;
};

}  // namespace nibble
