// The help pages. They are written here rather than by CLI11, whose pages neither wrap nor know the
// environment.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/command_line/command.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

constexpr size_t kIndent = 2;
constexpr size_t kHelpColumn = 6;  // Where the text under a flag begins.

std::string Usage(const Command& command) {
  std::string usage = absl::StrCat("nibble ", command.name);
  for (const Positional& positional : command.positionals) {
    absl::StrAppend(&usage, " ", positional.required ? "" : "[", positional.name,
                    positional.required ? "" : "]");
  }
  return absl::StrCat(usage, command.groups.empty() ? "" : " [FLAGS]");
}

// "--staging SIZE", and under it what it means, its default and its twin.
std::string SettingHelp(const Setting& setting, size_t columns) {
  std::string text = absl::StrCat(
      setting.help, setting.repeatable ? " May be repeated." : "",
      setting.default_text.empty() ? "" : absl::StrCat(" Default: ", setting.default_text, "."),
      " [", EnvironmentName(setting.name), "]");
  return absl::StrCat("  --", setting.name, setting.value_name.empty() ? "" : " ",
                      setting.value_name, "\n", std::string(kHelpColumn, ' '),
                      WrapText(text, columns - kHelpColumn, kHelpColumn), "\n");
}

void AppendPositionals(const Command& command, size_t columns, std::string& page) {
  if (command.positionals.empty()) {
    return;
  }
  absl::StrAppend(&page, "\nArguments\n");
  for (const Positional& positional : command.positionals) {
    absl::StrAppend(&page, "  ", positional.name, "\n", std::string(kHelpColumn, ' '),
                    WrapText(positional.help, columns - kHelpColumn, kHelpColumn), "\n");
  }
}

}  // namespace

std::vector<Setting> AllSettings(const Command& command) {
  std::vector<Setting> settings;
  for (const SettingGroup& group : command.groups) {
    settings.insert(settings.end(), group.settings.begin(), group.settings.end());
  }
  return settings;
}

std::string CommandHelp(const Command& command, size_t columns) {
  std::string page =
      absl::StrCat(Usage(command), "\n\n", WrapText(command.description, columns, 0), "\n");
  if (!command.examples.empty()) {
    absl::StrAppend(&page, "\nExamples\n");
    for (const std::string& example : command.examples) {
      absl::StrAppend(&page, "  ", example, "\n");
    }
  }
  AppendPositionals(command, columns, page);
  for (const SettingGroup& group : command.groups) {
    absl::StrAppend(&page, "\n", group.heading, "\n");
    for (const Setting& setting : group.settings) {
      absl::StrAppend(&page, SettingHelp(setting, columns));
    }
  }
  if (!command.groups.empty()) {
    absl::StrAppend(&page, "\n",
                    WrapText("Each flag has the environment variable in brackets for a twin; the "
                             "flag wins. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
                             columns, 0),
                    "\n");
  }
  return page;
}

std::string Overview(const std::vector<Command>& commands, size_t columns) {
  TextTable table({TextTable::Align::kLeft, TextTable::Align::kLeft});
  for (const Command& command : commands) {
    table.AddRow({command.name, command.summary});
  }
  return absl::StrCat(
      "nibble COMMAND [ARGUMENTS] [FLAGS]\n\n",
      WrapText("Serves language models in 4 bits from the device memory you allow it. Checkpoints "
               "are quantized while they stream in; a load fits the budget or is refused before "
               "it begins.",
               columns, 0),
      "\n\nCommands\n", table.Render("  "), "\n",
      WrapText("`nibble COMMAND --help` explains each. Start with `nibble serve --help`.", columns,
               0),
      "\n");
}

}  // namespace nibble
