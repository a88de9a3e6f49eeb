#include "server/engine/chat/template_set.h"

#include <gtest/gtest.h>

#include <string>

namespace nibble {
namespace {

std::string Rendered(const ChatTemplate* chat_template, const TemplateJson& variables = {}) {
  if (chat_template == nullptr) {
    return "no template";
  }
  return chat_template->Render(variables.is_null() ? TemplateJson::object() : variables)
      .value_or("an error");
}

TEST(TemplateSetTest, TakesTheTemplateOfTheConfigForDefault) {
  const auto set = TemplateSet::Parse({.tokenizer_config = R"({"chat_template": "hi {{ 1 }}"})"});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(Rendered(set->Find(false)), "hi 1");
  EXPECT_EQ(Rendered(set->Find(true)), "hi 1");
}

TEST(TemplateSetTest, ChoosesToolUseOnlyForToolsAndOnlyWhereItIs) {
  const auto set = TemplateSet::Parse({.tokenizer_config = R"({"chat_template": [
      {"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"},
      {"name": "rag", "template": "documents"}]})"});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(Rendered(set->Find(false)), "plain");
  EXPECT_EQ(Rendered(set->Find(true)), "tools");
  EXPECT_EQ(Rendered(set->FindByName("rag")), "documents");
  EXPECT_EQ(set->FindByName("nope"), nullptr);
}

TEST(TemplateSetTest, PrefersFilesToTheConfig) {
  const auto set = TemplateSet::Parse({.tokenizer_config = R"({"chat_template": "old"})",
                                       .chat_template = "new",
                                       .additional = {{"tool_use", "more"}}});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(Rendered(set->Find(false)), "new");
  EXPECT_EQ(Rendered(set->Find(true)), "more");
}

TEST(TemplateSetTest, ReadsSpecialTokensAsStringsAndObjects) {
  const auto set = TemplateSet::Parse({.tokenizer_config = R"({
      "bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false},
      "pad_token": null, "add_bos_token": true, "model_max_length": 1e30,
      "added_tokens_decoder": {"0": {"content": "<unk>"}},
      "chat_template": "{{ bos_token }}|{{ eos_token }}|{{ pad_token is defined }}"})"});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->special_tokens(),
            TemplateJson::parse(R"({"bos_token":"<s>","eos_token":"</s>"})"));
  EXPECT_EQ(Rendered(set->Find(false), set->special_tokens()), "<s>|</s>|False");
}

TEST(TemplateSetTest, HasNoTemplateWhereACheckpointHasNone) {
  const auto set = TemplateSet::Parse({.tokenizer_config = R"({"chat_template": null})"});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->Find(false), nullptr);
  EXPECT_TRUE(TemplateSet::Parse({}).ok());
}

TEST(TemplateSetTest, RefusesABrokenConfigByName) {
  for (const char* config : {"{", "[]", R"({"chat_template": 5})", R"({"chat_template": [5]})",
                             R"({"chat_template": [{"name": "x"}]})", R"({"bos_token": {)"}) {
    const auto set = TemplateSet::Parse({.tokenizer_config = config});
    EXPECT_EQ(set.status().code(), absl::StatusCode::kDataLoss) << config;
    EXPECT_EQ(set.status().message().substr(0, 22), "tokenizer_config.json:") << config;
  }
}

TEST(TemplateSetTest, NamesTheTemplateThatCannotBeParsed) {
  const auto set = TemplateSet::Parse({.chat_template = "ok", .additional = {{"rag", "{% if %}"}}});
  EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(set.status().message().find("template \"rag\": chat template, line 1"),
            absl::string_view::npos)
      << set.status();
}

}  // namespace
}  // namespace nibble
