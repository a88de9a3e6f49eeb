// The settings of one load, as `load`, `plan` and the [[model]] tables of a settings file share
// them: each field of quantization and serving under its own name.

#pragma once

#include <vector>

#include "loader/load_spec.h"
#include "server/command_line/setting.h"

namespace nibble {

// `spec` must outlive the settings.
std::vector<Setting> QuantizationSettings(QuantizationSpec* spec);
std::vector<Setting> ServingSettings(ServingSpec* spec);

}  // namespace nibble
