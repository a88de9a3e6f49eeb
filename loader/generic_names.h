// What a tensor is when its model's family is not known: decided by the last words of its name, so
// that the linear layers of nearly every decoder are found.

#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "absl/strings/string_view.h"
#include "loader/weight_names.h"

namespace nibble {

// kVision or kMultiTokenPrediction for a tensor of a tower or a head beside the text model, by the
// first word of its name ("model." left out); of any family.
std::optional<Role> RoleOutsideTextModel(absl::string_view tensor_name);

// `name` is that of a TensorPath. Its last word that is not "weight" is the module's:
//
//   rotary_emb.inv_freq                                  kRotaryBuffer
//   anything that ends in bias                           kBias
//   experts.gate_up_proj, experts.down_proj  [3-D]       kExpertsGateUp, kExpertsDown
//   norm, *norm, ln_*, ln1 ...               .weight     kNorm
//   conv*, *conv, *conv1d ...                .weight     kConvolution
//   embed*, *embeddings, wte, wpe ...        .weight     kEmbedding
//   lm_head, embed_out, output outside layers .weight    kOutputHead
//   gate, router, *_gate beside experts      .weight     kRouter
//   anything else                     [2-D]  .weight     kLinear
//   the rest                                             kOther
//
// The first line that fits counts.
Role GenericRole(absl::string_view name, std::span<const int64_t> shape);

}  // namespace nibble
