#include "server/engine/serving_plan.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {

PlannedServing PlanServing(const Checkpoint& checkpoint, LoadPlan& plan) {
  if (plan.serving.weights_only) {
    return {absl::OkStatus(), absl::FailedPreconditionError(
                                  "the model was loaded with weights_only: it does not generate")};
  }
  absl::StatusOr<ModelRecipe> recipe =
      MakeModelRecipe(checkpoint.config, checkpoint.config_json, plan.serving.max_context_tokens);
  if (!recipe.ok()) {
    plan.warnings.push_back(
        absl::StrCat("it loads, but does not generate: ", recipe.status().message()));
    return {absl::OkStatus(), recipe.status()};
  }
  const absl::StatusOr<ServingSizes> sizes = SizeServing(*recipe, plan.serving, plan.traits);
  if (!sizes.ok()) {
    return {sizes.status(), sizes.status()};
  }
  plan.kv_cache_bytes = sizes->kv_cache_bytes;
  plan.workspace_bytes = sizes->workspace_bytes;
  return {absl::OkStatus(),
          std::make_shared<const ServingPlan>(ServingPlan{*std::move(recipe), *sizes})};
}

}  // namespace nibble
