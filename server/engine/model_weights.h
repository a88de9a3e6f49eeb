// A model's weights as its forward pass uses them: which tensor of the slab stands where in the
// recipe.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/matrix.h"
#include "loader/weights.h"
#include "server/engine/model_recipe.h"

namespace nibble {

// A linear layer; without a matrix where the recipe has none.
struct LinearWeights {
  Matrix matrix;
  WeightVector bias;  // Empty: none.
};

// One matrix of every expert.
struct ExpertWeights {
  MatrixShape shape;
  std::vector<MatrixPlanes> planes;  // By expert.
};

struct AttentionWeights {
  LinearWeights query, key, value, output;
  WeightVector query_norm, key_norm;
};

struct LinearAttentionWeights {
  LinearWeights query_key_value, output_gate, decay_gate, write_gate, output;
  WeightVector convolution, decay, bias, norm;
};

struct MlpWeights {
  LinearWeights gate, up, down;
};

struct ExpertsWeights {
  LinearWeights router;
  ExpertWeights gate, up, down;
  MlpWeights shared;
  LinearWeights shared_router;
};

struct LayerWeights {
  WeightVector input_norm;
  WeightVector attention_output_norm;  // Of sandwich norms.
  WeightVector mlp_norm;               // None in a parallel block.
  WeightVector mlp_output_norm;        // Of sandwich norms.
  AttentionWeights attention;
  LinearAttentionWeights linear_attention;
  MlpWeights mlp;
  ExpertsWeights experts;
};

struct ModelWeights {
  Matrix embedding;
  FloatType embedding_type = FloatType::kBf16;  // Of a table that is not in 4 bits.
  std::vector<LayerWeights> layers;
  WeightVector norm;
  LinearWeights head;  // The embedding, if they are tied.
};

// `weights` must outlive the result.
//
// Errors: FAILED_PRECONDITION if a tensor that the recipe needs is missing, named;
//   UNIMPLEMENTED for weights in a layout or a mix of formats that our kernels do not take.
absl::StatusOr<ModelWeights> BindWeights(const ModelRecipe& recipe, const Weights& weights);

}  // namespace nibble
