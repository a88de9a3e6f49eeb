// What a load takes beside its weights, decided with the plan: whether the model can be served, and
// with how much memory.

#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "loader/checkpoint.h"
#include "loader/load_plan.h"
#include "server/engine/model_recipe.h"
#include "server/engine/serving_sizes.h"

namespace nibble {

struct ServingPlan {
  ModelRecipe recipe;
  ServingSizes sizes;
};

// Sets what serving takes in `plan`. Where the model cannot be served, or only its weights are
// wanted, nothing is set, and the result is why not: FAILED_PRECONDITION for weights_only, else the
// error of MakeModelRecipe(), of which the plan gets a warning.
//
// Errors (to be told from those by plan_status): INVALID_ARGUMENT for serving options that do not
//   fit the model.
struct PlannedServing {
  absl::Status plan_status;
  absl::StatusOr<std::shared_ptr<const ServingPlan>> serving;
};
PlannedServing PlanServing(const Checkpoint& checkpoint, LoadPlan& plan);

}  // namespace nibble
