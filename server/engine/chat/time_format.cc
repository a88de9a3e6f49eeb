#include "server/engine/chat/time_format.h"

#include <array>
#include <ctime>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nibble::jinja {
namespace {

// What glibc knows and Python hands on to it. %z and %Z are empty: Python's now() has no zone.
constexpr absl::string_view kFields = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyY%";

std::string OneField(absl::string_view field, const std::tm& parts) {
  std::array<char, 128> text;
  const std::string format(field);
  const size_t length = std::strftime(text.data(), text.size(), format.c_str(), &parts);
  return std::string(text.data(), length);
}

}  // namespace

std::string FormatTime(Run& run, absl::string_view format, absl::Time time, absl::TimeZone zone) {
  const std::tm parts = absl::ToTM(time, zone);
  std::string text;
  for (size_t i = 0; i < format.size() && run.StepLookups(1);) {
    size_t field = i + 1;
    if (field < format.size() && absl::StrContains("-_0^#", format[field])) {
      ++field;  // A flag of glibc, as in %-d.
    }
    if (format[i] != '%' || field >= format.size()) {
      text += format[i++];
      continue;
    }
    if (absl::StrContains(kFields, format[field])) {
      text += OneField(format.substr(i, field + 1 - i), parts);
    } else if (format[field] == 'f') {
      const int64_t microseconds =
          absl::ToInt64Microseconds(time - absl::FromUnixSeconds(absl::ToUnixSeconds(time)));
      text += absl::StrCat(absl::Dec(microseconds, absl::kZeroPad6));
    } else if (format[field] != 'z' && format[field] != 'Z') {
      absl::StrAppend(&text, format.substr(i, field + 1 - i));
    }
    i = field + 1;
    if (!run.MayMake(static_cast<int64_t>(text.size()))) {
      break;
    }
  }
  return text;
}

}  // namespace nibble::jinja
