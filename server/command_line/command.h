// A command of `nibble` as data: what its help says, what it takes, what it runs. One parser and
// one help page serve them all.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/command_line/setting.h"

namespace nibble {

// What the process returns.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;  // The daemon refused, or something went wrong.
inline constexpr int kExitUsage = 2;   // The command line, the environment or the file is wrong.

// An argument without a flag.
struct Positional {
  std::string name;  // "SOURCE"
  std::string help;
  std::string* target;
  bool required = true;
};

// Settings under one heading of the help page.
struct SettingGroup {
  std::string heading;
  std::vector<Setting> settings;
};

struct Command {
  std::string name;         // "load"; two words for a command of a group: "bench load".
  std::string summary;      // A line of the list of commands.
  std::string description;  // Paragraphs.
  std::vector<std::string> examples;
  std::vector<Positional> positionals;
  std::vector<SettingGroup> groups;

  // Called once flags and environment are applied; what it returns yields to them. May be null.
  std::function<absl::StatusOr<std::vector<GivenSetting>>()> read_file;

  // Returns: an exit code.
  std::function<int()> run;
};

std::vector<Setting> AllSettings(const Command& command);

// The page of `nibble COMMAND --help`, in lines of at most `columns` characters.
std::string CommandHelp(const Command& command, size_t columns);

// The page of `nibble --help`.
std::string Overview(const std::vector<Command>& commands, size_t columns);

// Finds the command that the arguments name, gives its settings the values of flag, environment and
// file, in this order of precedence, and runs it. Prints help to stdout, mistakes to stderr.
//
// Returns: the exit code.
int RunCommandLine(const std::vector<Command>& commands, int argc, const char* const* argv);

}  // namespace nibble
