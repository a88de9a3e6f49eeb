#include "server/command_line/bench_model.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "loader/quantizing_loader.h"
#include "server/command_line/bench_device.h"
#include "server/command_line/client.h"
#include "server/command_line/local_source.h"

namespace nibble {
namespace {

class SilentObserver final : public LoadObserver {
 public:
  void OnProgress(const LoadProgress&) override {}
  bool cancelled() const override { return false; }
};

bool IsExpert(Role role) {
  return role == Role::kExpertGate || role == Role::kExpertUp || role == Role::kExpertDown ||
         role == Role::kExpertsGateUp || role == Role::kExpertsDown;
}

int64_t RowWeightBytes(const LoadPlan& plan, const ModelRecipe& recipe) {
  const bool tied = std::none_of(
      plan.tensors.begin(), plan.tensors.end(),
      [](const PlannedTensor& tensor) { return tensor.weight.role == Role::kOutputHead; });
  int64_t bytes = 0;
  int64_t expert_bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.loaded || (tensor.weight.role == Role::kEmbedding && !tied)) {
      continue;
    }
    (IsExpert(tensor.weight.role) ? expert_bytes : bytes) += tensor.device_bytes;
  }
  return recipe.expert_count == 0
             ? bytes
             : bytes + expert_bytes * recipe.expert_top_k / recipe.expert_count;
}

}  // namespace

std::vector<Setting> BenchModelSettings(BenchModelOptions& options) {
  return {
      DeviceSetting("The device to run on.", &options.device),
      ChoiceSetting("format", "The format to quantize to.", {"NF4", "FP4", "AS_STORED"}, 0,
                    [&options](size_t index) {
                      constexpr Format kFormats[] = {Format::kNf4, Format::kFp4, Format::kAsStored};
                      options.quantization.format = kFormats[index];
                    }),
      ChoiceSetting("arithmetic", "As of `nibble serve`.", {"fp32", "bf16"}, 1,
                    [&options](size_t index) {
                      options.products.arithmetic =
                          index == 0 ? Arithmetic::kFp32 : Arithmetic::kBf16;
                    }),
      SwitchSetting("batch-invariant", "As of `nibble serve`.", &options.products.batch_invariant),
      CountSetting("runs", "Runs of each.", "9", 1, 1000,
                   [&options](int64_t runs) { options.runs = runs; }),
      JsonSetting(&options.json)};
}

absl::StatusOr<std::unique_ptr<BenchModel>> BenchModel::Load(const BenchModelOptions& options) {
  std::unique_ptr<BenchModel> model(new BenchModel());
  absl::StatusOr<Checkpoint> checkpoint = OpenLocalCheckpoint(options.source);
  if (!checkpoint.ok()) {
    return checkpoint.status();
  }
  model->checkpoint_ = *std::move(checkpoint);
  const absl::StatusOr<DeviceTraits> traits = TraitsOf(options.device);
  if (!traits.ok()) {
    return traits.status();
  }
  ServingSpec serving;
  serving.max_context_tokens = options.context_tokens;
  serving.max_sequences = 1;
  absl::StatusOr<LoadPlan> made = MakeLoadPlan(model->checkpoint_, options.quantization, serving,
                                               *traits, kStagingBytesDefault);
  if (!made.ok()) {
    return made.status();
  }
  PlannedServing planned = PlanServing(model->checkpoint_, *made);
  if (!planned.plan_status.ok() || !planned.serving.ok()) {
    return planned.plan_status.ok() ? planned.serving.status() : planned.plan_status;
  }
  model->serving_ = *std::move(planned.serving);
  const auto plan = std::make_shared<const LoadPlan>(*std::move(made));
  model->row_weight_bytes_ = RowWeightBytes(*plan, model->serving_->recipe);
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenBenchDevice(options.device, plan->peak_bytes());
  if (!device.ok()) {
    return device.status();
  }
  model->device_ = *std::move(device);
  model->budget_ = std::make_unique<VramBudget>(plan->peak_bytes());
  absl::StatusOr<VramBudget::Reservation> reservation =
      model->budget_->Reserve("bench", plan->peak());
  if (!reservation.ok()) {
    return reservation.status();
  }
  SilentObserver observer;
  const LoadSource source{&model->checkpoint_, plan};
  absl::StatusOr<std::unique_ptr<Weights>> weights = LoadWeights(
      *model->device_, std::span(&source, 1), *std::move(reservation), LoaderOptions(), observer);
  if (!weights.ok()) {
    return weights.status();
  }
  model->weights_ = *std::move(weights);
  EngineOptions engine_options;
  engine_options.products = options.products;
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(*model->device_, *model->weights_, model->serving_->recipe,
                     model->serving_->sizes, engine_options, nullptr);
  if (!engine.ok()) {
    return engine.status();
  }
  model->engine_ = *std::move(engine);
  return model;
}

absl::StatusOr<AnswerTimes> BenchModel::Answer(int64_t prompt_tokens, int64_t tokens) {
  GenerationRequest request;
  const auto vocabulary = static_cast<uint32_t>(serving_->recipe.vocabulary_size);
  for (int64_t index = 0; index < prompt_tokens; ++index) {
    request.prompt.push_back(static_cast<int32_t>(random_() % vocabulary));
  }
  request.tokens_max = tokens;
  request.sampling.temperature = 0;
  const absl::Time start = absl::Now();
  absl::StatusOr<std::shared_ptr<Generation>> generation =
      engine_->Submit(std::move(request), nullptr);
  if (!generation.ok()) {
    return generation.status();
  }
  absl::Time first = absl::InfiniteFuture();
  for (;;) {
    (*generation)->Wait();
    while ((*generation)->Next()) {
      first = std::min(first, absl::Now());
    }
    if (const std::optional<GenerationEnd> end = (*generation)->end()) {
      if (!end->status.ok()) {
        return end->status;
      }
      return AnswerTimes{first - start, absl::Now() - first};
    }
  }
}

}  // namespace nibble
