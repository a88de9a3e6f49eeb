// A small model that was loaded and runs, in a test: from a directory to logits.

#pragma once

#include <filesystem>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "server/engine/forward_pass.h"
#include "server/engine/serving_plan.h"
#include "server/engine/step_inputs.h"
#include "tests/support/loading.h"

namespace nibble {

// Weights with the memory that serving them takes. Aborts where that does not work.
struct ServedWeights {
  ServedWeights(Device& device, const std::filesystem::path& path, const QuantizationSpec& spec,
                const ServingSpec& serving_spec) {
    const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(path);
    Check(checkpoint.ok(), checkpoint.status().ToString().c_str());
    absl::StatusOr<LoadPlan> plan =
        MakeLoadPlan(*checkpoint, spec, serving_spec, device.traits(), kStagingBytesMin);
    Check(plan.ok(), plan.status().ToString().c_str());
    PlannedServing planned = PlanServing(*checkpoint, *plan);
    Check(planned.serving.ok(), planned.serving.status().ToString().c_str());
    serving = *std::move(planned.serving);
    NullObserver observer;
    absl::StatusOr<std::unique_ptr<Weights>> loaded = LoadForTest(
        device, budget, *checkpoint, std::make_shared<const LoadPlan>(*std::move(plan)), observer);
    Check(loaded.ok(), loaded.status().ToString().c_str());
    weights = *std::move(loaded);
  }

  VramBudget budget{1_GiB};
  std::shared_ptr<const ServingPlan> serving;
  std::unique_ptr<Weights> weights;
};

// A forward pass that a test drives itself. Pages are handed out to sequences backwards, so that no
// test passes because page n is at place n.
class RunningModel {
 public:
  RunningModel(Device& device, const std::filesystem::path& path, const QuantizationSpec& spec,
               const ServingSpec& serving, const ProductOptions& products = {})
      : served_(device, path, spec, serving), queue_(*device.NewQueue()) {
    const ServingPlan& plan = *served_.serving;
    absl::StatusOr<ModelWeights> bound = BindWeights(plan.recipe, *served_.weights);
    Check(bound.ok(), bound.status().ToString().c_str());
    pass_ =
        std::make_unique<ForwardPass>(device, plan.recipe, *std::move(bound), plan.sizes, products,
                                      served_.weights->kv_memory(), served_.weights->workspace());
    inputs_ = std::make_unique<StepInputs>(plan.sizes.limits);
    const absl::Status prepared = pass_->Prepare(*queue_);
    Check(prepared.ok(), prepared.ToString().c_str());
  }

  // One sequence of a step.
  struct Chunk {
    int sequence = 0;
    std::vector<int32_t> tokens;
    int64_t first_position = 0;
    int64_t output_count = 0;
  };

  // The logits of the chunks' outputs, in their order.
  std::vector<std::vector<float>> Step(const std::vector<Chunk>& chunks) {
    inputs_->Clear();
    std::vector<std::vector<int32_t>> pages;
    for (const Chunk& chunk : chunks) {
      pages.push_back(PagesOf(chunk.sequence));
      inputs_->Add({chunk.tokens, chunk.first_position, pages.back(), chunk.sequence,
                    std::ssize(chunk.tokens) - chunk.output_count, chunk.output_count});
    }
    absl::Status status = inputs_->Upload(*queue_, pass_->inputs());
    status.Update(pass_->QueueStep(*queue_, inputs_->bounds()));
    const int64_t vocabulary = pass_->recipe().vocabulary_size;
    std::vector<float> flat(static_cast<size_t>(inputs_->output_count() * vocabulary));
    status.Update(queue_->CopyToHost(pass_->logits().Slice(0, std::ssize(flat) * 4),
                                     std::as_writable_bytes(std::span(flat))));
    status.Update(queue_->Synchronize());
    Check(status.ok(), status.ToString().c_str());
    std::vector<std::vector<float>> rows;
    for (auto row = flat.begin(); row != flat.end(); row += vocabulary) {
      rows.emplace_back(row, row + vocabulary);
    }
    return rows;
  }

  // The logits of every token of a prompt, which is run in steps of at most `chunk` tokens, or of
  // as many outputs as a step has.
  std::vector<std::vector<float>> Logits(int sequence, const std::vector<int32_t>& prompt,
                                         int64_t chunk) {
    std::vector<std::vector<float>> all;
    chunk = std::min(chunk, pass_->sizes().limits.outputs);
    for (int64_t first = 0; first < std::ssize(prompt); first += chunk) {
      const int64_t count = std::min(chunk, std::ssize(prompt) - first);
      const std::vector<int32_t> tokens(prompt.begin() + first, prompt.begin() + first + count);
      for (std::vector<float>& row : Step({{sequence, tokens, first, count}})) {
        all.push_back(std::move(row));
      }
    }
    return all;
  }

  const ForwardPass& pass() const { return *pass_; }

 private:
  std::vector<int32_t> PagesOf(int sequence) const {
    const int64_t pages = pass_->sizes().limits.pages;
    const auto last = static_cast<int32_t>(pass_->sizes().page_count - 1 - sequence * pages);
    Check(last + 1 >= pages, "the pool has a full context for this sequence");
    std::vector<int32_t> numbers(static_cast<size_t>(pages));
    for (size_t index = 0; index < numbers.size(); ++index) {
      numbers[index] = last - static_cast<int32_t>(index);
    }
    return numbers;
  }

  ServedWeights served_;
  std::unique_ptr<Queue> queue_;
  std::unique_ptr<ForwardPass> pass_;
  std::unique_ptr<StepInputs> inputs_;
};

}  // namespace nibble
