// What a daemon is started with: flags, environment and settings file, merged into DaemonOptions.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/command_line/command.h"
#include "server/command_line/setting.h"
#include "server/daemon.h"

namespace nibble {

struct ServeOptions {
  DaemonOptions daemon;
  std::string config;  // The settings file; empty: none.
};

// `options` must outlive them.
std::vector<SettingGroup> ServeSettings(ServeOptions* options);

// Reads options.config: returns what is under [serve] and puts the models into options.daemon.
//
// Errors: as ReadSettingsFile; INVALID_ARGUMENT that names file and line for an unknown key or a
// bad
//   value of a model, and for a model without name or source.
absl::StatusOr<std::vector<GivenSetting>> ReadServeFile(ServeOptions& options);

}  // namespace nibble
