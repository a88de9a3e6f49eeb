// Templates and what transformers makes of them.

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/strip.h"
#include "tests/server/engine/chat/case_file.h"

namespace nibble {
namespace {

TemplateJson VariablesOf(const TemplateJson& example) {
  TemplateJson variables = example["variables"];
  variables["messages"] = example["messages"];
  variables["tools"] = example["tools"];
  variables["add_generation_prompt"] = example["add_generation_prompt"];
  return variables;
}

TEST(GoldenTemplatesTest, PrintsWhatTransformersPrintsAndFailsWhereItFails) {
  const auto cases = TemplateJson::parse(ReadChatFile("cases.json"));
  ASSERT_EQ(cases.size(), 242);
  for (const TemplateJson& example : cases) {
    const std::string name = example["template"];
    const auto rendered = RenderSource(ReadChatFile(name + ".jinja"), VariablesOf(example));
    if (example.contains("rendered")) {
      ASSERT_TRUE(rendered.ok()) << name << ": " << rendered.status();
      EXPECT_EQ(*rendered, example["rendered"].get<std::string>()) << name;
      continue;
    }
    const std::string error = example["error"];
    EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument) << name;
    // Only raise_exception's text is a contract.
    absl::string_view raised = error;
    if (absl::ConsumePrefix(&raised, "TemplateError: ")) {
      EXPECT_EQ(rendered.status().message(), raised);
    }
  }
}

}  // namespace
}  // namespace nibble
