// The optional TOML file of `nibble serve`: settings of the daemon under [serve], models to load at
// start as [[model]] tables.
//
//   [serve]
//   vram-budget = "24GiB"
//   model-root = ["/models", "/scratch/models"]
//
//   [[model]]
//   name = "qwen"
//   source = "Qwen3-30B-A3B"
//   format = "NF4"

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/command_line/setting.h"

namespace nibble {

// Keys may be written with hyphens, as flags are, or with underscores, as the fields of the .proto
// files are; here they have hyphens. Each origin names file, line and key.
struct SettingsFile {
  std::vector<GivenSetting> serve;
  std::vector<std::vector<GivenSetting>> models;
};

// Errors: INVALID_ARGUMENT with file and line for what is no TOML, for a table that is not one of
//   the two, for a value that is no text, number, boolean or list of those, and for a key given
//   twice. Whether a key is a setting is for ApplySettings to say.
absl::StatusOr<SettingsFile> ParseSettingsFile(const std::string& file_name,
                                               absl::string_view toml);

// Errors: NOT_FOUND or INVALID_ARGUMENT if the file cannot be read; as above.
absl::StatusOr<SettingsFile> ReadSettingsFile(const std::string& file_name);

}  // namespace nibble
