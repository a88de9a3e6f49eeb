#include "server/engine/text/answer_format.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"

namespace nibble {
namespace {

CallForm FindCallForm(absl::string_view template_source) {
  if (absl::StrContains(template_source, kCallBegin)) {
    return absl::StrContains(template_source, "<function=") ? CallForm::kTagged : CallForm::kJson;
  }
  // A call of an earlier turn is printed as the model has written it.
  const std::string unescaped = absl::StrReplaceAll(template_source, {{"\\", ""}});
  const bool prints_bare_calls = absl::StrContains(unescaped, R"({"name":)") &&
                                 absl::StrContains(unescaped, R"("parameters":)");
  return prints_bare_calls || absl::StrContains(template_source, kBareCallBegin) ? CallForm::kBare
                                                                                 : CallForm::kNone;
}

}  // namespace

AnswerFormat FindAnswerFormat(absl::string_view template_source, absl::string_view prompt,
                              const TemplateJson& tools) {
  AnswerFormat format;
  format.has_reasoning = absl::StrContains(template_source, kReasoningEnd);
  format.begins_in_reasoning =
      format.has_reasoning &&
      absl::EndsWith(absl::StripTrailingAsciiWhitespace(prompt), kReasoningBegin);
  if (tools.is_array() && !tools.empty()) {
    format.calls = FindCallForm(template_source);
  }
  if (format.calls == CallForm::kTagged) {
    format.json_parameters = FindJsonParameters(tools);
  }
  return format;
}

std::vector<absl::string_view> MarkersOf(const AnswerFormat& format) {
  std::vector<absl::string_view> markers;
  if (format.has_reasoning) {
    markers.insert(markers.end(), {kReasoningBegin, kReasoningEnd});
  }
  if (format.calls == CallForm::kJson || format.calls == CallForm::kTagged) {
    markers.insert(markers.end(), {kCallBegin, kCallEnd});
  } else if (format.calls == CallForm::kBare) {
    markers.push_back(kBareCallBegin);
  }
  return markers;
}

}  // namespace nibble
