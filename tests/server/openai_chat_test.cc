#include "server/openai_chat.h"

#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "server/request_json.h"

namespace nibble {
namespace {

TEST(OpenAiChatTest, GivesTemplatesWhatTheyExpectOfATurnWithTools) {
  const absl::StatusOr<TemplateJson> messages = ReadMessages(*ParseNestedJson(R"([
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": [{"type": "text", "text": "Weather?"}], "name": "ann"},
      {"role": "assistant", "content": null, "refusal": null, "tool_calls": [
          {"id": "c1", "type": "function", "index": 0,
           "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\", \"days\": 2}"}}]},
      {"role": "tool", "tool_call_id": "c1", "content": "cold"},
      {"role": "assistant", "content": "Cold.", "reasoning_content": "It said so."}])"));
  ASSERT_TRUE(messages.ok()) << messages.status();
  // Members in the order in which the reader writes them; arguments are no string any more.
  EXPECT_EQ(messages->dump(),
            R"([{"role":"system","content":"Be brief."},)"
            R"({"role":"user","content":"Weather?","name":"ann"},)"
            R"({"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function",)"
            R"("function":{"name":"weather","arguments":{"city":"Oslo","days":2}}}]},)"
            R"({"role":"tool","content":"cold","tool_call_id":"c1"},)"
            R"({"role":"assistant","content":"Cold.","reasoning_content":"It said so."}])");
}

TEST(OpenAiChatTest, NamesThePartOfAMessageThatItRefuses) {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "messages"},
      {"[1]", "messages[0]"},
      {R"([{"role": "user", "content": "x"}, {"role": "god", "content": "x"}])",
       "messages[1].role"},
      {R"([{"content": "x"}])", "messages[0].role"},
      {R"([{"role": "user"}])", "messages[0].content"},
      {R"([{"role": "user", "content": 1}])", "messages[0].content"},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])",
       "messages[0].content[0].type"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "messages[0].content[0].text"},
      {R"([{"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}])",
       "messages[0].content[0].y"},
      {R"([{"role": "user", "content": "x", "mood": "good"}])", "messages[0].mood"},
      {R"([{"role": "user", "content": "x", "tool_calls": []}])", "messages[0].tool_calls"},
      {R"([{"role": "assistant", "audio": {"id": "x"}}])", "messages[0].audio"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}])",
       "messages[0].tool_calls[0].function.arguments"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}])",
       "messages[0].tool_calls[0].function.name"},
      {R"([{"role": "assistant", "tool_calls": [{"type": "custom"}]}])",
       "messages[0].tool_calls[0].type"},
  };
  for (const auto& [json, field] : cases) {
    const absl::Status status = ReadMessages(*ParseNestedJson(json)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_EQ(DetailsOf(status).field, field) << json;
  }
}

TEST(OpenAiChatTest, RefusesMoreMessagesThanItReads) {
  TemplateJson messages = TemplateJson::array();
  const TemplateJson one = *ParseNestedJson(R"({"role": "user", "content": "x"})");
  for (int count = 0; count < 4096; ++count) {
    messages.push_back(one);
  }
  EXPECT_TRUE(ReadMessages(messages).ok());
  messages.push_back(one);
  EXPECT_EQ(DetailsOf(ReadMessages(messages).status()).field, "messages");
}

TEST(RequestJsonTest, KeepsOrderAndKindsOfNumbers) {
  const absl::StatusOr<TemplateJson> json =
      ParseRequestJson(R"({"b": 1, "a": [1.0, -2, 18446744073709551615, 1e2], "": null})");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->dump(), R"({"b":1,"a":[1.0,-2,18446744073709551615,100.0],"":null})");
}

TEST(RequestJsonTest, RefusesWhatIsNoRequest) {
  for (const char* body : {"", "[]", "1", "{", "{}{}", "{\"a\": 1, \"a\": 2}", "{\"a\": NaN}",
                           "{\"a\": \"\xff\"}", "{\"a\": 1,}", "{'a': 1}"}) {
    EXPECT_EQ(ParseRequestJson(body).status().code(), absl::StatusCode::kInvalidArgument) << body;
  }
}

TEST(RequestJsonTest, EndsAtItsDepth) {
  const auto nested = [](size_t depth) {
    return "{\"a\": " + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_TRUE(ParseRequestJson(nested(64)).ok());
  EXPECT_FALSE(ParseRequestJson(nested(65)).ok());
  EXPECT_FALSE(ParseRequestJson("{\"a\": " + std::string(500'000, '[')).ok());
}

}  // namespace
}  // namespace nibble
