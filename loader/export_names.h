// Under which names transformers looks for the tensors of an export.
//
//   as they are                                most of them
//   model.language_model.layers...             model.layers...: the text model stands alone
//   experts.gate_up_proj [E, 2 I, H], in 4 bits  experts.E.gate_proj.weight and .up_proj.weight
//   experts.down_proj [E, H, I], in 4 bits     experts.E.down_proj.weight
//   Mixtral's mlp.experts.E.gate_proj          block_sparse_moe.experts.E.w1 (up: w3, down: w2)
//
// transformers 4 has a module for each expert; transformers 5, which fuses them, reads these names
// too, but only in 16 bits.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "loader/load_plan.h"
#include "loader/model_config.h"

namespace nibble {

// What an export writes as one tensor (in 4 bits: with its side tensors): a run of a tensor's
// parts.
struct ExportUnit {
  const PlannedTensor* tensor = nullptr;
  int64_t first_part = 0;
  int64_t part_count = 0;
};

// The units of a loaded tensor: each expert of one that was quantized expert by expert, otherwise
// the whole.
std::vector<ExportUnit> UnitsOf(const PlannedTensor& tensor);

// Requires: `unit` is one of UnitsOf.
std::string ExportedName(const ModelConfig& config, const ExportUnit& unit);
std::vector<int64_t> ExportedShape(const ExportUnit& unit);

// The text model of a vision-language model as a class of its own.
struct TextClass {
  absl::string_view model_type;
  absl::string_view architecture;
};

// Nothing if transformers has none that is known to us.
std::optional<TextClass> FindTextClass(absl::string_view model_type);

// Whether experts of this model type are fused by gate rows first, then up, as all families in our
// tables do; others may be interleaved or transposed.
bool KnowsFusedExperts(absl::string_view model_type);

}  // namespace nibble
