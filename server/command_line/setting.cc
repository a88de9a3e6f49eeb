#include "server/command_line/setting.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "server/command_line/byte_size.h"

namespace nibble {
namespace {

const Setting* Find(const std::vector<Setting>& settings, absl::string_view name) {
  const auto found = std::find_if(settings.begin(), settings.end(),
                                  [&](const Setting& setting) { return setting.name == name; });
  return found == settings.end() ? nullptr : &*found;
}

absl::Status ApplyOne(const Setting& setting, const GivenSetting& given) {
  const bool right_count = setting.repeatable ? !given.values.empty() : given.values.size() == 1;
  absl::Status status = right_count ? setting.apply(given.values)
                                    : absl::InvalidArgumentError(absl::StrCat(
                                          "expected one value, found ", given.values.size()));
  if (status.ok()) {
    return status;
  }
  return absl::InvalidArgumentError(absl::StrCat(given.origin, ": ", status.message()));
}

// "AS_STORED" and "as-stored" are the same choice.
std::string Spelling(absl::string_view choice) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(choice), {{"_", "-"}});
}

template <typename Number>
bool ParseWhole(absl::string_view text, Number& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

}  // namespace

std::string EnvironmentName(absl::string_view setting_name) {
  return absl::StrCat("NIBBLE_",
                      absl::StrReplaceAll(absl::AsciiStrToUpper(setting_name), {{"-", "_"}}));
}

std::vector<GivenSetting> FromEnvironment(
    const std::vector<Setting>& settings,
    const std::function<const char*(const std::string& name)>& get_variable) {
  std::vector<GivenSetting> given;
  for (const Setting& setting : settings) {
    const std::string variable = EnvironmentName(setting.name);
    const char* value = get_variable(variable);
    if (value == nullptr || *value == '\0') {
      continue;
    }
    std::vector<std::string> values = {value};
    if (setting.repeatable) {
      values = absl::StrSplit(value, ':', absl::SkipEmpty());
    }
    given.push_back({setting.name, std::move(values), variable});
  }
  return given;
}

absl::Status ApplySettings(const std::vector<Setting>& settings,
                           const std::vector<GivenSetting>& given,
                           std::vector<std::string>& taken) {
  for (const GivenSetting& one : given) {
    const Setting* setting = Find(settings, one.name);
    if (setting == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(one.origin, ": unknown setting"));
    }
    if (std::find(taken.begin(), taken.end(), one.name) != taken.end()) {
      continue;
    }
    if (absl::Status status = ApplyOne(*setting, one); !status.ok()) {
      return status;
    }
    taken.push_back(one.name);
  }
  return absl::OkStatus();
}

Setting TextSetting(std::string name, std::string value_name, std::string help,
                    std::string* target) {
  return {std::move(name),
          std::move(value_name),
          std::move(help),
          *target,
          false,
          [target](const std::vector<std::string>& values) {
            *target = values.front();
            return absl::OkStatus();
          }};
}

Setting ListSetting(std::string name, std::string value_name, std::string help,
                    std::vector<std::string>* target) {
  return {std::move(name),
          std::move(value_name),
          std::move(help),
          absl::StrJoin(*target, ":"),
          true,
          [target](const std::vector<std::string>& values) {
            *target = values;
            return absl::OkStatus();
          }};
}

Setting SwitchSetting(std::string name, std::string help, bool* target) {
  return {std::move(name),
          "",
          std::move(help),
          *target ? "true" : "",
          false,
          [target](const std::vector<std::string>& values) {
            const std::string value = absl::AsciiStrToLower(values.front());
            const bool on = value == "true" || value == "1" || value == "on" || value == "yes";
            if (!on && value != "false" && value != "0" && value != "off" && value != "no") {
              return absl::InvalidArgumentError(
                  absl::StrCat("expected true or false, found '", values.front(), "'"));
            }
            *target = on;
            return absl::OkStatus();
          }};
}

Setting SizeSetting(std::string name, std::string help, std::string default_text,
                    std::function<void(int64_t bytes)> apply) {
  return {std::move(name),
          "SIZE",
          std::move(help),
          std::move(default_text),
          false,
          [apply = std::move(apply)](const std::vector<std::string>& values) {
            const absl::StatusOr<int64_t> bytes = ParseByteSize(values.front());
            if (bytes.ok()) {
              apply(*bytes);
            }
            return bytes.status();
          }};
}

Setting DurationSetting(std::string name, std::string help, absl::Duration* target) {
  const std::string default_text =
      *target == absl::InfiniteDuration() ? "for ever" : absl::FormatDuration(*target);
  return {
      std::move(name),
      "TIME",
      std::move(help),
      default_text,
      false,
      [target](const std::vector<std::string>& values) {
        absl::Duration duration;
        if (!absl::ParseDuration(values.front(), &duration) || duration < absl::ZeroDuration()) {
          return absl::InvalidArgumentError(absl::StrCat(
              "'", values.front(), "' is no time: write a number and ms, s, m or h, as 90s"));
        }
        *target = duration;
        return absl::OkStatus();
      }};
}

Setting RatioSetting(std::string name, std::string help, double* target) {
  return {std::move(name),
          "SHARE",
          std::move(help),
          absl::StrCat(*target),
          false,
          [target](const std::vector<std::string>& values) {
            double ratio = 0;
            if (!ParseWhole(values.front(), ratio) || !(ratio >= 0 && ratio <= 1)) {
              return absl::InvalidArgumentError(
                  absl::StrCat("expected a number from 0 to 1, found '", values.front(), "'"));
            }
            *target = ratio;
            return absl::OkStatus();
          }};
}

Setting CountSetting(std::string name, std::string help, std::string default_text, int64_t least,
                     int64_t most, std::function<void(int64_t count)> apply) {
  return {std::move(name),
          "N",
          std::move(help),
          std::move(default_text),
          false,
          [least, most, apply = std::move(apply)](const std::vector<std::string>& values) {
            int64_t count = 0;
            if (!ParseWhole(values.front(), count) || count < least || count > most) {
              return absl::InvalidArgumentError(absl::StrCat("expected a whole number from ", least,
                                                             " to ", most, ", found '",
                                                             values.front(), "'"));
            }
            apply(count);
            return absl::OkStatus();
          }};
}

Setting ChoiceSetting(std::string name, std::string help, std::vector<std::string> choices,
                      size_t default_index, std::function<void(size_t index)> apply) {
  const std::string default_text = choices[default_index];
  const std::string value_name = absl::StrJoin(choices, "|");
  return {std::move(name),
          value_name,
          std::move(help),
          default_text,
          false,
          [choices = std::move(choices), apply = std::move(apply),
           value_name](const std::vector<std::string>& values) {
            for (size_t index = 0; index < choices.size(); ++index) {
              if (Spelling(choices[index]) == Spelling(values.front())) {
                apply(index);
                return absl::OkStatus();
              }
            }
            return absl::InvalidArgumentError(
                absl::StrCat("expected ", value_name, ", found '", values.front(), "'"));
          }};
}

}  // namespace nibble
