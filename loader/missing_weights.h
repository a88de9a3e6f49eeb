// Weights that a model of a known family should have, and its checkpoint has not.

#pragma once

#include "loader/load_plan.h"
#include "loader/model_config.h"

namespace nibble {

// Adds warnings that name what is missing. A model that is not whole is loaded all the same, for
// telemetry and export; who serves it says what it cannot do without.
//
// Missing are: layers below config.layer_count; what other layers have in the same module (both
// kinds of attention and of feed-forward layers are modules of their own); projections without
// which such a module is none; experts below config.expert_count; embeddings and the last norm.
//
// Requires: the family of config.model_type is known.
void WarnOfMissingWeights(const ModelConfig& config, LoadPlan& plan);

}  // namespace nibble
