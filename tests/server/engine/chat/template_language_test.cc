// Each part of the language, compared with jinja2
// (tests/data/chat_templates/make_language_cases.py).

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/strip.h"
#include "tests/server/engine/chat/case_file.h"

namespace nibble {
namespace {

class TemplateLanguageTest : public testing::TestWithParam<const char*> {};

TEST_P(TemplateLanguageTest, DoesWhatJinjaDoes) {
  static const auto kCases = TemplateJson::parse(ReadChatFile("language_cases.json"));
  const TemplateJson& group = kCases["groups"][GetParam()];
  ASSERT_GT(group.size(), 5);
  for (const TemplateJson& example : group) {
    const std::string source = example["template"];
    const auto rendered = RenderSource(source, kCases["variables"]);
    if (example.contains("rendered")) {
      EXPECT_TRUE(rendered.ok()) << source << ": " << rendered.status();
      EXPECT_EQ(rendered.value_or(""), example["rendered"].get<std::string>()) << source;
      continue;
    }
    EXPECT_FALSE(rendered.ok()) << source << ": " << *rendered;
    const std::string error = example["error"];
    absl::string_view raised = error;
    if (absl::ConsumePrefix(&raised, "TemplateError: ")) {
      EXPECT_EQ(rendered.status().message(), raised) << source;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Language, TemplateLanguageTest,
                         testing::Values("white_space", "literals", "operators", "access",
                                         "statements", "loops", "macros", "tests", "text_filters",
                                         "sequence_filters", "selection_filters", "number_filters",
                                         "tojson", "string_methods", "functions"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace nibble
