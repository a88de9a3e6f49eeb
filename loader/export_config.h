// config.json of an export: the source's, with a quantization_config by which transformers finds
// the layers that are in 4 bits.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loader/export_names.h"
#include "loader/load_plan.h"
#include "loader/model_config.h"

namespace nibble {

// The modules that transformers must not make 4-bit layers of: every linear layer that is kept, by
// its full name, and the output head even where it is tied and not stored (a given list replaces
// transformers' own, which knows of it). Experts that are all kept are named by their parent.
std::vector<std::string> KeptModules(const LoadPlan& plan, const ModelConfig& config);

// The source's config, every other byte of it as it was; of a vision-language model its
// text_config, completed by what stands beside it.
//
// Requires: `config` was read from `config_json`; if it is nested, it has a TextClass.
// Errors: DATA_LOSS if the text is no JSON.
absl::StatusOr<std::string> ExportedConfig(const LoadPlan& plan, const ModelConfig& config,
                                           absl::string_view config_json);

}  // namespace nibble
