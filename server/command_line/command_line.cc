// The only file that knows CLI11: it turns arguments into settings.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/command_line/command.h"

namespace nibble {
namespace {

constexpr size_t kHelpColumns = 96;

// What CLI11 writes to: one command's arguments, as text.
struct Arguments {
  CLI::App* app = nullptr;
  std::map<std::string, std::vector<std::string>> flags;  // By the setting's name.
  std::map<std::string, std::string> switches;
};

void AddSetting(const Setting& setting, Arguments& arguments) {
  const std::string flag = absl::StrCat("--", setting.name);
  if (setting.value_name.empty()) {
    arguments.app->add_flag(flag, arguments.switches[setting.name], "");
    return;
  }
  std::vector<std::string>& values = arguments.flags[setting.name];
  CLI::Option* option =
      arguments.app->add_option(flag, [&values](const std::vector<std::string>& results) {
        values = results;
        return true;
      });
  if (setting.repeatable) {
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
}

void AddCommand(const Command& command, CLI::App& root, std::map<std::string, CLI::App*>& groups,
                Arguments& arguments) {
  const std::vector<std::string> words = absl::StrSplit(command.name, ' ');
  CLI::App* parent = &root;
  if (words.size() == 2) {
    CLI::App*& group = groups[words.front()];
    if (group == nullptr) {
      group = root.add_subcommand(words.front());
      group->require_subcommand(1);
    }
    parent = group;
  }
  arguments.app = parent->add_subcommand(words.back());
  for (const Positional& positional : command.positionals) {
    arguments.app->add_option(positional.name, *positional.target)->required(positional.required);
  }
  for (const SettingGroup& group : command.groups) {
    for (const Setting& setting : group.settings) {
      AddSetting(setting, arguments);
    }
  }
}

std::vector<GivenSetting> FromFlags(const Arguments& arguments) {
  std::vector<GivenSetting> given;
  for (const auto& [name, values] : arguments.flags) {
    if (!values.empty()) {
      given.push_back({name, values, absl::StrCat("--", name)});
    }
  }
  for (const auto& [name, value] : arguments.switches) {
    if (!value.empty()) {
      given.push_back({name, {value}, absl::StrCat("--", name)});
    }
  }
  return given;
}

int UsageError(const std::string& command_name, absl::string_view message) {
  std::fprintf(stderr, "nibble %s: %s\nSee `nibble %s%s--help`.\n", command_name.c_str(),
               std::string(message).c_str(), command_name.c_str(), command_name.empty() ? "" : " ");
  return kExitUsage;
}

int RunCommand(const Command& command, const Arguments& arguments) {
  const std::vector<Setting> settings = AllSettings(command);
  std::vector<std::string> taken;
  absl::Status status = ApplySettings(settings, FromFlags(arguments), taken);
  if (status.ok()) {
    status = ApplySettings(
        settings,
        FromEnvironment(settings,
                        [](const std::string& name) { return std::getenv(name.c_str()); }),
        taken);
  }
  if (status.ok() && command.read_file != nullptr) {
    const absl::StatusOr<std::vector<GivenSetting>> file = command.read_file();
    status = file.ok() ? ApplySettings(settings, *file, taken) : file.status();
  }
  return status.ok() ? command.run() : UsageError(command.name, status.message());
}

// The command whose arguments CLI11 had begun to read.
size_t SelectedIndex(const std::deque<Arguments>& arguments) {
  for (size_t index = 0; index < arguments.size(); ++index) {
    if (arguments[index].app->parsed()) {
      return index;
    }
  }
  return arguments.size();
}

// `nibble bench` alone names a group: the commands that begin with it.
std::vector<Command> NamedBy(const std::vector<Command>& commands,
                             const std::map<std::string, CLI::App*>& groups) {
  for (const auto& [name, app] : groups) {
    if (app->parsed()) {
      std::vector<Command> members;
      for (const Command& command : commands) {
        if (command.name.rfind(name + " ", 0) == 0) {
          members.push_back(command);
        }
      }
      return members;
    }
  }
  return commands;
}

}  // namespace

int RunCommandLine(const std::vector<Command>& commands, int argc, const char* const* argv) {
  CLI::App root;
  root.require_subcommand(1);
  std::map<std::string, CLI::App*> groups;
  std::deque<Arguments> arguments;  // A deque: CLI11 keeps pointers into them.
  for (const Command& command : commands) {
    AddCommand(command, root, groups, arguments.emplace_back());
  }
  try {
    root.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const size_t index = SelectedIndex(arguments);
    const std::string page = index < commands.size()
                                 ? CommandHelp(commands[index], kHelpColumns)
                                 : Overview(NamedBy(commands, groups), kHelpColumns);
    std::fputs(page.c_str(), stdout);
    return kExitDone;
  } catch (const CLI::ParseError& error) {
    const size_t index = SelectedIndex(arguments);
    if (argc < 2) {
      std::fputs(Overview(commands, kHelpColumns).c_str(), stderr);
      return kExitUsage;
    }
    if (index == commands.size()) {
      std::fprintf(stderr, "nibble: there is no command \"%s\"\n%s", argv[1],
                   Overview(NamedBy(commands, groups), kHelpColumns).c_str());
      return kExitUsage;
    }
    return UsageError(commands[index].name, error.what());
  }
  const size_t index = SelectedIndex(arguments);
  return RunCommand(commands[index], arguments[index]);
}

}  // namespace nibble
