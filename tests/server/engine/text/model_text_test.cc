#include "server/engine/text/model_text.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

class ModelTextTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((root_.path() / "model" / name).parent_path());
    WriteFile(root_.path() / "model" / name, content);
  }

  std::shared_ptr<const ModelText> Load() const {
    const auto directory = OpenCheckpointDirectory(root_.path().string(), "model");
    EXPECT_TRUE(directory.ok()) << directory.status();
    const auto text = ModelText::Load(**directory, "{}");
    EXPECT_TRUE(text.ok()) << text.status();
    return *text;
  }

  static std::string Rendered(const ModelText& text, const std::string& variables) {
    const absl::StatusOr<RenderedPrompt> prompt = text.Render(TemplateJson::parse(variables));
    return prompt.ok() ? prompt->text : std::string(prompt.status().message());
  }

  const ScratchDirectory root_;
};

TEST_F(ModelTextTest, ReadsTheTemplatesBesideTheFirst) {
  Write("chat_template.jinja", "plain");
  Write("additional_chat_templates/tool_use.jinja", "tools");
  Write("additional_chat_templates/rag.jinja", "documents");
  Write("additional_chat_templates/README.md", "{% no template");
  const auto text = Load();
  EXPECT_EQ(Rendered(*text, "{}"), "plain");
  EXPECT_EQ(Rendered(*text, R"({"tools": [{}]})"), "tools");
}

TEST_F(ModelTextTest, TellsOfABrokenTemplateWhenOneIsUsed) {
  Write("chat_template.jinja", "plain");
  Write("additional_chat_templates/rag.jinja", "{% if %}");
  const std::string message = Rendered(*Load(), "{}");
  EXPECT_NE(message.find("rag"), std::string::npos) << message;
}

TEST_F(ModelTextTest, ReadsNoTemplateThatLiesOutsideTheModelRoot) {
  const ScratchDirectory elsewhere;
  WriteFile(elsewhere.path() / "tool_use.jinja", "stolen");
  Write("chat_template.jinja", "plain");
  std::filesystem::create_directory_symlink(elsewhere.path(),
                                            root_.path() / "model" / "additional_chat_templates");
  const std::string rendered = Rendered(*Load(), R"({"tools": [{}]})");
  EXPECT_NE(rendered, "stolen");
}

TEST_F(ModelTextTest, ReadsNoMoreTemplatesThanItsLimit) {
  Write("chat_template.jinja", "plain");
  for (int index = 0; index < 17; ++index) {
    Write("additional_chat_templates/" + std::to_string(index) + ".jinja", "x");
  }
  EXPECT_NE(Rendered(*Load(), "{}").find("more than 16"), std::string::npos);
}

}  // namespace
}  // namespace nibble
