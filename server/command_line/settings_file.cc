#include "server/command_line/settings_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace nibble {
namespace {

absl::Status ErrorAt(const std::string& file_name, const toml::source_region& place,
                     absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(file_name, ":", place.begin.line, ": ", message));
}

// Returns: false if the value is no text, number or boolean.
bool AppendScalar(const toml::node& node, std::vector<std::string>& values) {
  if (const auto* text = node.as_string()) {
    values.push_back(text->get());
  } else if (const auto* whole = node.as_integer()) {
    values.push_back(absl::StrCat(whole->get()));
  } else if (const auto* real = node.as_floating_point()) {
    values.push_back(absl::StrCat(real->get()));
  } else if (const auto* boolean = node.as_boolean()) {
    values.push_back(boolean->get() ? "true" : "false");
  } else {
    return false;
  }
  return true;
}

absl::StatusOr<GivenSetting> ReadEntry(const std::string& file_name, const toml::key& key,
                                       const toml::node& node) {
  const std::string name(key.str());
  GivenSetting given;
  given.name = absl::StrReplaceAll(name, {{"_", "-"}});
  given.origin = absl::StrCat(file_name, ":", key.source().begin.line, ": ", name);
  bool readable = true;
  if (const toml::array* list = node.as_array()) {
    for (const toml::node& element : *list) {
      readable = readable && AppendScalar(element, given.values);
    }
  } else {
    readable = AppendScalar(node, given.values);
  }
  if (!readable) {
    return ErrorAt(file_name, key.source(),
                   absl::StrCat(name, ": expected text, a number, a boolean or a list"));
  }
  return given;
}

absl::StatusOr<std::vector<GivenSetting>> ReadTable(const std::string& file_name,
                                                    const toml::table& table) {
  std::vector<GivenSetting> settings;
  for (const auto& [key, node] : table) {
    absl::StatusOr<GivenSetting> given = ReadEntry(file_name, key, node);
    if (!given.ok()) {
      return given.status();
    }
    const bool repeated = std::any_of(settings.begin(), settings.end(),
                                      [&](const auto& other) { return other.name == given->name; });
    if (repeated) {
      return ErrorAt(file_name, key.source(), absl::StrCat(given->name, ": given twice"));
    }
    // An empty list says the same as no list.
    if (!given->values.empty()) {
      settings.push_back(*std::move(given));
    }
  }
  return settings;
}

absl::Status ReadModels(const std::string& file_name, const toml::key& key, const toml::node& node,
                        SettingsFile& file) {
  const toml::array* tables = node.as_array();
  if (tables == nullptr || !tables->is_homogeneous(toml::node_type::table)) {
    return ErrorAt(file_name, key.source(), "expected [[model]] tables");
  }
  for (const toml::node& table : *tables) {
    absl::StatusOr<std::vector<GivenSetting>> model = ReadTable(file_name, *table.as_table());
    if (!model.ok()) {
      return model.status();
    }
    file.models.push_back(*std::move(model));
  }
  return absl::OkStatus();
}

absl::StatusOr<SettingsFile> ReadRoot(const std::string& file_name, const toml::table& root) {
  SettingsFile file;
  for (const auto& [key, node] : root) {
    if (key.str() == "model") {
      if (absl::Status status = ReadModels(file_name, key, node, file); !status.ok()) {
        return status;
      }
    } else if (key.str() == "serve" && node.is_table()) {
      absl::StatusOr<std::vector<GivenSetting>> serve = ReadTable(file_name, *node.as_table());
      if (!serve.ok()) {
        return serve.status();
      }
      file.serve = *std::move(serve);
    } else {
      return ErrorAt(file_name, key.source(),
                     absl::StrCat(std::string(key.str()),
                                  ": expected only a [serve] table and [[model]] tables here"));
    }
  }
  return file;
}

}  // namespace

absl::StatusOr<SettingsFile> ParseSettingsFile(const std::string& file_name,
                                               absl::string_view toml) {
  try {
    return ReadRoot(file_name, toml::parse(std::string_view(toml.data(), toml.size()), file_name));
  } catch (const toml::parse_error& error) {
    return ErrorAt(file_name, error.source(), std::string(error.description()));
  }
}

absl::StatusOr<SettingsFile> ReadSettingsFile(const std::string& file_name) {
  std::ifstream stream(file_name, std::ios::binary);
  if (!stream) {
    return absl::NotFoundError(absl::StrCat(file_name, ": the settings file cannot be opened"));
  }
  std::ostringstream contents;
  contents << stream.rdbuf();
  if (stream.bad() || contents.fail()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_name, ": the settings file cannot be read, or is empty"));
  }
  return ParseSettingsFile(file_name, contents.str());
}

}  // namespace nibble
