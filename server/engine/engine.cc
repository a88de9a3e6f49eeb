#include "server/engine/engine.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/engine_loop.h"
#include "server/engine/model_weights.h"

namespace nibble {

Engine::Engine(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Engine::~Engine() = default;

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(Device& device, const Weights& weights,
                                                       const ModelRecipe& recipe,
                                                       const ServingSizes& sizes,
                                                       const EngineOptions& options,
                                                       EngineObserver* observer) {
  absl::StatusOr<ModelWeights> bound = BindWeights(recipe, weights);
  if (!bound.ok()) {
    return bound.status();
  }
  absl::StatusOr<std::unique_ptr<Queue>> queue = device.NewQueue();
  if (!queue.ok()) {
    return queue.status();
  }
  auto pass =
      std::make_unique<ForwardPass>(device, recipe, *std::move(bound), sizes, options.products,
                                    weights.kv_memory(), weights.workspace());
  if (absl::Status status = pass->Prepare(**queue); !status.ok()) {
    return status;
  }
  absl::StatusOr<DecodeSteps> decode_steps = DecodeSteps::Record(**queue, *pass);
  if (!decode_steps.ok()) {
    return decode_steps.status();
  }
  try {
    return std::unique_ptr<Engine>(new Engine(std::make_unique<Loop>(
        *std::move(queue), std::move(pass), *std::move(decode_steps), options, observer)));
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("no thread for an engine: ", error.what()));
  }
}

absl::StatusOr<std::shared_ptr<Generation>> Engine::Submit(GenerationRequest request,
                                                           std::function<void()> notify) {
  return loop_->Submit(std::move(request), std::move(notify));
}

void Engine::Drain() { loop_->Drain(); }
void Engine::Abort() { loop_->Abort(); }
void Engine::Stop() { loop_->Stop(); }
EngineStats Engine::stats() const { return loop_->stats(); }
const ModelRecipe& Engine::recipe() const { return loop_->pass().recipe(); }
const StepLimits& Engine::limits() const { return loop_->pass().sizes().limits; }

}  // namespace nibble
