// A setting: one name for a flag, its environment twin and its key in a settings file, with one
// meaning and one parser, whichever of them it came from.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nibble {

struct Setting {
  std::string name;        // "vram-budget": flag --vram-budget, variable NIBBLE_VRAM_BUDGET.
  std::string value_name;  // "SIZE"; empty for a switch, which needs no value to mean true.
  std::string help;        // What it does, its unit, what raising it costs.
  std::string default_text;
  bool repeatable = false;

  // Takes over the values: one, or at least one if repeatable.
  //
  // Errors: INVALID_ARGUMENT, without the name of the setting.
  std::function<absl::Status(const std::vector<std::string>& values)> apply;
};

// A setting as one source gave it.
struct GivenSetting {
  std::string name;
  std::vector<std::string> values;
  std::string origin;  // For messages: "--staging", "NIBBLE_STAGING", "nibble.toml:12: staging".
};

// "vram-budget" -> "NIBBLE_VRAM_BUDGET".
std::string EnvironmentName(absl::string_view setting_name);

// What the environment says of `settings`; a list is separated by ':'. An empty variable is unset.
std::vector<GivenSetting> FromEnvironment(
    const std::vector<Setting>& settings,
    const std::function<const char*(const std::string& name)>& get_variable);

// Applies `given` settings in the order of precedence: the first to name a setting wins, what is
// named in `taken` is passed over. Adds the applied names to `taken`.
//
// Errors: INVALID_ARGUMENT that begins with the origin; for a name that no setting has, too.
absl::Status ApplySettings(const std::vector<Setting>& settings,
                           const std::vector<GivenSetting>& given, std::vector<std::string>& taken);

// The kinds of settings. `target` holds the default when they are called, and the value afterwards;
// it must outlive the setting. Those that several integer types want call `apply` instead.
Setting TextSetting(std::string name, std::string value_name, std::string help,
                    std::string* target);
Setting ListSetting(std::string name, std::string value_name, std::string help,
                    std::vector<std::string>* target);
Setting SwitchSetting(std::string name, std::string help, bool* target);
Setting DurationSetting(std::string name, std::string help, absl::Duration* target);
Setting RatioSetting(std::string name, std::string help, double* target);  // 0 to 1.

Setting SizeSetting(std::string name, std::string help, std::string default_text,
                    std::function<void(int64_t bytes)> apply);

// A whole number from `least` to `most`.
Setting CountSetting(std::string name, std::string help, std::string default_text, int64_t least,
                     int64_t most, std::function<void(int64_t count)> apply);

// One of `choices`, whichever way it is spelled (`as-stored`, `AS_STORED`); `apply` gets its index.
Setting ChoiceSetting(std::string name, std::string help, std::vector<std::string> choices,
                      size_t default_index, std::function<void(size_t index)> apply);

}  // namespace nibble
