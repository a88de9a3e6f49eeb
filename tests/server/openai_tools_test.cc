// Reasoning and calls of tools through OpenAI's API: the demo model, whose answer to the question
// is "Six plus seven is thirteen.", with the marks of other models for some of its tokens.

#include <map>
#include <set>

#include "gmock/gmock.h"
#include "tests/server/openai_fixture.h"
#include "tests/support/marked_demo.h"

namespace nibble {
namespace {

using ::testing::StartsWith;
using Json = nlohmann::json;

constexpr absl::string_view kTools =
    R"(, "tools": [{"type": "function", "function": {"name": "add", "parameters":
        {"type": "object", "properties": {"a": {"enum": [6]}, "b": {"enum": ["seven"]}},
         "required": ["a", "b"], "additionalProperties": false}}},
        {"type": "function", "function": {"name": "stop"}}])";

class OpenAiToolsTest : public OpenAiFixture {
 protected:
  void LoadMarked(const MarkedDemo& demo) {
    WriteMarkedDemo(demo, root_.path() / "marked");
    Load("marked", false, "marked");
  }

  Reply Ask(absl::string_view more) const {
    return Chat(absl::StrCat(R"({"model": "marked", "messages": [)",
                             R"({"role": "user", "content": "What is six plus seven?"}])", more,
                             "}"));
  }

  Json Whole(absl::string_view more) const {
    const Reply reply = Ask(more);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.json()["choices"][0];
  }

  // A choice put together from a stream, as clients do it.
  Json Streamed(absl::string_view more) const {
    const Reply reply = Ask(absl::StrCat(more, R"(, "stream": true)"));
    EXPECT_EQ(reply.status, 200) << reply.body;
    std::map<std::string, std::string> texts;
    Json calls = Json::array();
    Json choice;
    for (const std::string& event : reply.events()) {
      if (event == "[DONE]") {
        continue;
      }
      const Json part = Json::parse(event)["choices"][0];
      for (const auto& [name, value] : part["delta"].items()) {
        if (name != "tool_calls") {
          texts[name] += value.get<std::string>();
          continue;
        }
        for (Json call : value) {
          EXPECT_EQ(call["index"], calls.size());
          call.erase("index");
          calls.push_back(call);
        }
      }
      choice["finish_reason"] = part["finish_reason"];
    }
    choice["message"] = texts;
    if (!calls.empty()) {
      choice["message"]["tool_calls"] = calls;
    }
    return choice;
  }
};

TEST_F(OpenAiToolsTest, TellsReasoningApartWhoseMarksAreSpecialTokens) {
  LoadMarked({.renames = {{kSix, "<think>"}, {kThirteen, "</think>"}},
              .are_special = true,
              .mention = "<think></think>"});
  for (const Json& choice : {Whole(""), Streamed("")}) {
    EXPECT_EQ(choice["message"]["reasoning_content"], "plus seven is");
    EXPECT_EQ(choice["message"]["content"], ".");
    EXPECT_EQ(choice["message"]["role"], "assistant");
    EXPECT_EQ(choice["finish_reason"], "stop");
  }
  const Json cut = Whole(R"(, "max_tokens": 3)");
  EXPECT_EQ(cut["message"]["reasoning_content"], "plus seven");
  EXPECT_TRUE(cut["message"]["content"].is_null());
  EXPECT_EQ(cut["finish_reason"], "length");
}

TEST_F(OpenAiToolsTest, BeginsInTheReasoningThatThePromptHasOpened) {
  LoadMarked({.mention = "</think>", .prompt_end = "<think>\n"});
  const Json choice = Whole(R"(, "max_tokens": 5)");
  EXPECT_FALSE(choice["message"]["reasoning_content"].get<std::string>().empty());
  EXPECT_TRUE(choice["message"]["content"].is_null());
  // A format binds what comes after it, and keeps the answer from ending before. The model does not
  // know how to end a thought: it is cut.
  const Json json = Whole(R"(, "max_tokens": 5, "response_format": {"type": "json_object"})");
  EXPECT_THAT(json["message"]["reasoning_content"].get<std::string>(),
              StartsWith(choice["message"]["reasoning_content"].get<std::string>()));
  EXPECT_TRUE(json["message"]["content"].is_null());
}

TEST_F(OpenAiToolsTest, FindsTheCallThatTheModelMakes) {
  LoadMarked({.renames = {{kSix, R"(<tool_call>{"name": "add", "arguments": {"note": ")"},
                          {kThirteen, R"("}}</tool_call>)"}},
              .mention = "<tool_call>"});
  for (const Json& choice : {Whole(kTools), Streamed(kTools)}) {
    ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u) << choice;
    const Json& call = choice["message"]["tool_calls"][0];
    EXPECT_EQ(call["type"], "function");
    EXPECT_EQ(call["function"]["name"], "add");
    EXPECT_EQ(call["function"]["arguments"], R"({"note": " plus seven is"})");
    EXPECT_THAT(call["id"].get<std::string>(), StartsWith("call_"));
    EXPECT_EQ(choice["message"]["content"], ".");
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
  }
  const std::string text =
      R"(<tool_call>{"name": "add", "arguments": {"note": " plus seven is"}}</tool_call>.)";
  EXPECT_EQ(Whole("")["message"]["content"], text) << "without tools there are no calls";
  EXPECT_EQ(Whole(absl::StrCat(kTools, R"(, "tool_choice": "none")"))["message"]["content"], text);
  const Json one = Whole(absl::StrCat(kTools, R"(, "parallel_tool_calls": false)"));
  EXPECT_TRUE(one["message"]["content"].is_null()) << "it ends with its call";
  EXPECT_EQ(one["finish_reason"], "tool_calls");
}

TEST_F(OpenAiToolsTest, NumbersItsCallsAnew) {
  LoadMarked({.renames = {{kSix, R"(<tool_call>{"name": "add", "arguments": {"note": ")"},
                          {kThirteen, R"("}}</tool_call>)"}},
              .mention = "<tool_call>"});
  std::set<std::string> ids;
  for (int request = 0; request < 2; ++request) {
    const Json json = Ask(absl::StrCat(kTools, R"(, "n": 3)")).json();
    for (const Json& choice : json["choices"]) {
      ids.insert(choice["message"]["tool_calls"][0]["id"]);
    }
  }
  EXPECT_EQ(ids.size(), 6u);
}

TEST_F(OpenAiToolsTest, HoldsAnAnswerToACall) {
  LoadMarked({.mention = "<tool_call>"});
  const std::string chosen =
      absl::StrCat(kTools, R"(, "tool_choice": {"type": "function", "function": {"name": "add"}})");
  for (const Json& choice : {Whole(chosen), Streamed(chosen)}) {
    ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u) << choice;
    const Json& function = choice["message"]["tool_calls"][0]["function"];
    EXPECT_EQ(function["name"], "add");
    EXPECT_EQ(Json::parse(function["arguments"].get<std::string>()),
              Json::parse(R"({"a": 6, "b": "seven"})"));
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
  }
  const Json any = Whole(absl::StrCat(kTools, R"(, "tool_choice": "required")"));
  ASSERT_EQ(any["message"]["tool_calls"].size(), 1u) << any;
  const std::string name = any["message"]["tool_calls"][0]["function"]["name"];
  EXPECT_TRUE(name == "add" || name == "stop") << name;
}

TEST_F(OpenAiToolsTest, HoldsAnAnswerToTheCallOfLlama) {
  LoadMarked({.mention = "<|python_tag|>"});
  for (const Json& choice : {Whole(absl::StrCat(kTools, R"(, "tool_choice": "required")")),
                             Streamed(absl::StrCat(kTools, R"(, "tool_choice": "required")"))}) {
    EXPECT_EQ(choice["message"]["tool_calls"].size(), 1u) << choice;
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
  }
}

TEST_F(OpenAiToolsTest, SaysWhereItCannotHoldAnAnswerToACall) {
  LoadMarked({.mention = "<tool_call><function=f>"});
  const Reply form = Ask(absl::StrCat(kTools, R"(, "tool_choice": "required")"));
  EXPECT_EQ(form.status, 400);
  EXPECT_EQ(form.json()["error"]["param"], "tool_choice");
  const Reply both = Ask(absl::StrCat(
      kTools, R"(, "tool_choice": "required", "response_format": {"type": "json_object"})"));
  EXPECT_EQ(both.json()["error"]["param"], "tool_choice");
}

}  // namespace
}  // namespace nibble
