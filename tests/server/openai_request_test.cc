#include "server/openai_request.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "loader/checkpoint_directory.h"
#include "server/request_json.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

constexpr int64_t kVocabulary = 960;  // Of the demo model.

class OpenAiRequestTest : public ::testing::Test {
 protected:
  static TemplateJson Json(const std::string& text) {
    absl::StatusOr<TemplateJson> json = ParseRequestJson(text);
    EXPECT_TRUE(json.ok()) << json.status() << "\n" << text;
    return json.ok() ? *std::move(json) : TemplateJson::object();
  }

  // With the members that every request needs, and `more`.
  absl::StatusOr<OpenAiRequest> Completion(const std::string& more) const {
    return ParseCompletion(Json(R"({"model": "m", "prompt": "Once")" + more + "}"), *text_);
  }
  absl::StatusOr<OpenAiRequest> Chat(const std::string& more) const {
    return ParseChatCompletion(
        Json(R"({"model": "m", "messages": [{"role": "user", "content": "Hi"}])" + more + "}"),
        *text_, kVocabulary);
  }

  // As the demo model's template puts one message of a user.
  std::vector<int32_t> Asked(const std::string& content) const {
    return *text_->Encode("<|begin|><|user|>\n" + content + "<|end|>\n<|assistant|>\n",
                          {.add_special_tokens = false, .parse_special = true});
  }

  const std::shared_ptr<const ModelText> text_ =
      *ModelText::Load(**ResolveSource({NIBBLE_TEST_DATA}, "demo-model"), "{}");
};

TEST_F(OpenAiRequestTest, ReadsEveryOptionOfACompletion) {
  const absl::StatusOr<OpenAiRequest> request = Completion(R"(,
      "max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125, "n": 2,
      "seed": 11, "stop": ["a", "b"], "frequency_penalty": 1, "presence_penalty": -1,
      "repetition_penalty": 1.5, "logit_bias": {"5": -100, "6": 2}, "logprobs": 4, "echo": true,
      "stream": true, "stream_options": {"include_usage": true}, "user": "u", "best_of": 2,
      "suffix": null)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->model, "m");
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  ASSERT_EQ(request->texts.size(), 1u);
  const TextRequest& one = request->texts[0];
  EXPECT_EQ(one.tokens_max, 7);
  EXPECT_EQ(one.answers, 2);
  EXPECT_TRUE(one.echo);
  EXPECT_THAT(one.stop, ElementsAre("a", "b"));
  EXPECT_THAT(one.stop_token_ids, ElementsAre(1)) << "the model's own";
  EXPECT_EQ(one.sampling.temperature, 0.5f);
  EXPECT_EQ(one.sampling.top_p, 0.25f);
  EXPECT_EQ(one.sampling.top_k, 3);
  EXPECT_EQ(one.sampling.min_p, 0.125f);
  EXPECT_EQ(one.sampling.seed, 11u);
  EXPECT_EQ(one.sampling.frequency_penalty, 1.0f);
  EXPECT_EQ(one.sampling.presence_penalty, -1.0f);
  EXPECT_EQ(one.sampling.repetition_penalty, 1.5f);
  EXPECT_THAT(one.sampling.logit_biases, ElementsAre(std::pair(5, -100.f), std::pair(6, 2.f)));
  EXPECT_EQ(one.sampling.top_log_probabilities, 4);
}

TEST_F(OpenAiRequestTest, TakesOpenAisDefaultsAndTheModels) {
  const absl::StatusOr<OpenAiRequest> request = Completion("");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_FALSE(request->stream);
  EXPECT_EQ(request->texts[0].tokens_max, 16);
  EXPECT_EQ(request->texts[0].answers, 1);
  EXPECT_EQ(request->texts[0].sampling.temperature, 0) << "the model's do_sample is false";
  EXPECT_FALSE(request->wants_log_probabilities());
  EXPECT_EQ(Chat("")->texts[0].tokens_max, 0) << "to the end of the context";
}

TEST_F(OpenAiRequestTest, StopsAtTheModelsTokensUnlessTheyAreIgnored) {
  EXPECT_THAT(Completion(R"(, "stop_token_ids": [5])")->texts[0].stop_token_ids, ElementsAre(5, 1));
  EXPECT_THAT(Completion(R"(, "stop_token_ids": [5], "ignore_eos": true)")->texts[0].stop_token_ids,
              ElementsAre(5));
}

TEST_F(OpenAiRequestTest, ReadsPromptsInEveryForm) {
  const auto prompts = [this](const std::string& prompt) {
    const absl::StatusOr<OpenAiRequest> request =
        ParseCompletion(Json(R"({"model": "m", "prompt": )" + prompt + "}"), *text_);
    EXPECT_TRUE(request.ok()) << request.status() << prompt;
    std::vector<std::vector<int32_t>> ids;
    for (const TextRequest& one : request.ok() ? request->texts : std::vector<TextRequest>()) {
      ids.push_back(one.prompt);
    }
    return ids;
  };
  // The golden data's prompt "<|begin|>Once upon a time".
  const std::vector<int32_t> once = {0, 506, 507, 263, 392};
  EXPECT_THAT(prompts(R"("Once upon a time")"), ElementsAre(once));
  EXPECT_THAT(prompts(R"(["Once upon a time", "Once upon a time"])"), ElementsAre(once, once));
  EXPECT_THAT(prompts("[0, 506]"), ElementsAre(ElementsAre(0, 506)));
  EXPECT_THAT(prompts("[[0, 506], [3]]"), ElementsAre(ElementsAre(0, 506), ElementsAre(3)));
}

TEST_F(OpenAiRequestTest, MakesConstraintsOfFormats) {
  EXPECT_EQ(Chat(R"(, "response_format": {"type": "text"})")->texts[0].make_constraint, nullptr);
  for (const char* const format :
       {R"({"type": "json_object"})",
        R"({"type": "json_schema", "json_schema": {"name": "n", "strict": true,
            "schema": {"type": "integer"}}})"}) {
    const absl::StatusOr<OpenAiRequest> request =
        Chat(std::string(R"(, "response_format": )") + format);
    ASSERT_TRUE(request.ok()) << request.status();
    ASSERT_NE(request->texts[0].make_constraint, nullptr);
    EXPECT_TRUE(request->texts[0].make_constraint().ok());
  }
}

TEST_F(OpenAiRequestTest, PutsMessagesThroughTheTemplate) {
  EXPECT_EQ(Chat("")->texts[0].prompt, Asked("Hi"));
  const absl::StatusOr<OpenAiRequest> parts =
      ParseChatCompletion(Json(R"({"model": "m", "messages": [{"role": "user", "content":
          [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]}]})"),
                          *text_, kVocabulary);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->texts[0].prompt, Asked("One\nTwo"));
}

TEST_F(OpenAiRequestTest, ReadsEveryOptionOfAChat) {
  const absl::StatusOr<OpenAiRequest> request = Chat(R"(,
      "max_completion_tokens": 5, "max_tokens": 5, "logprobs": true, "top_logprobs": 3,
      "response_format": {"type": "text"}, "tool_choice": "none", "parallel_tool_calls": true,
      "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
      "chat_template_kwargs": {"enable_thinking": false})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->texts[0].tokens_max, 5);
  EXPECT_EQ(request->texts[0].sampling.top_log_probabilities, 3);
  EXPECT_EQ(Chat(R"(, "logprobs": true)")->texts[0].sampling.top_log_probabilities, 0);
}

TEST_F(OpenAiRequestTest, NamesTheFieldOfACompletionThatItRefuses) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("suffix": "x")", "suffix"},
      {R"("no_such_field": 0)", "no_such_field"},
      {R"("best_of": 3)", "best_of"},
      {R"("max_tokens": 0)", "max_tokens"},
      {R"("max_tokens": 1.5)", "max_tokens"},
      {R"("max_tokens": 18446744073709551615)", "max_tokens"},
      {R"("temperature": "hot")", "temperature"},
      {R"("top_p": 1e300)", "top_p"},
      {R"("top_k": -2)", "top_k"},
      {R"("n": 0)", "n"},
      {R"("n": 17)", "n"},
      {R"("seed": "x")", "seed"},
      {R"("stop": 1)", "stop"},
      {R"("stop": [1])", "stop"},
      {R"("stop": "")", "stop"},
      {R"("stop_token_ids": [1.5])", "stop_token_ids"},
      {R"("ignore_eos": 1)", "ignore_eos"},
      {R"("logprobs": 21)", "logprobs"},
      {R"("logprobs": true)", "logprobs"},
      {R"("echo": 1)", "echo"},
      {R"("stream": "yes")", "stream"},
      {R"("stream_options": {"include_usage": true})", "stream_options"},
      {R"("stream": true, "stream_options": {"other": true})", "stream_options.other"},
      {R"("logit_bias": {"x": 1})", "logit_bias"},
      {R"("logit_bias": [1])", "logit_bias"},
      {R"("user": 5)", "user"},
      {R"("add_special_tokens": 1)", "add_special_tokens"},
      {R"("messages": [])", "messages"},
  };
  for (const auto& [members, field] : cases) {
    const absl::Status status = Completion(std::string(", ") + members).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << members;
    EXPECT_EQ(DetailsOf(status).field, field) << members;
    EXPECT_THAT(std::string(status.message()), StartsWith(std::string(field) + ": ")) << members;
    EXPECT_EQ(status.message().find(std::string(field) + ": ", 1), absl::string_view::npos)
        << "once: " << status;
  }
}

TEST_F(OpenAiRequestTest, NamesTheFieldOfAChatThatItRefuses) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("echo": true)", "echo"},
      {R"("prompt": "x")", "prompt"},
      {R"("functions": [])", "functions"},
      {R"("reasoning_effort": "low")", "reasoning_effort"},
      {R"("top_logprobs": 2)", "top_logprobs"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs"},
      {R"("logprobs": 2)", "logprobs"},
      {R"("max_tokens": 1, "max_completion_tokens": 2)", "max_tokens"},
      {R"("response_format": {"type": "xml"})", "response_format.type"},
      {R"("response_format": {"type": "json_schema", "json_schema": {}})",
       "response_format.json_schema.schema"},
      {R"("response_format": {"type": "text", "x": 1})", "response_format.x"},
      {R"("tool_choice": "required")", "tool_choice"},
      {R"("tool_choice": {"type": "function", "function": {"name": "f"}})", "tool_choice"},
      {R"("parallel_tool_calls": 1)", "parallel_tool_calls"},
      {R"("tool_choice": "maybe", "tools": [{"type": "function", "function": {"name": "f"}}])",
       "tool_choice"},
      {R"("tool_choice": {"type": "function", "function": {"name": "g"}},
          "tools": [{"type": "function", "function": {"name": "f"}}])",
       "tool_choice"},
      {R"("tool_choice": {"type": "allowed_tools"},
          "tools": [{"type": "function", "function": {"name": "f"}}])",
       "tool_choice.type"},
      // The demo model's template says nothing of tools.
      {R"("tools": [{"type": "function", "function": {"name": "f"}}])", "tools"},
      {R"("tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f"}}])",
       "tools"},
      {R"("tools": {})", "tools"},
      {R"("tools": [{"type": "code"}])", "tools[0].type"},
      {R"("tools": [{"type": "function", "function": {}}])", "tools[0].function.name"},
      {R"("tools": [{"type": "function", "function": {"name": "f", "strict": true}}])",
       "tools[0].function.strict"},
      {R"("chat_template_kwargs": {"messages": []})", "chat_template_kwargs"},
  };
  for (const auto& [members, field] : cases) {
    const absl::Status status = Chat(std::string(", ") + members).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << members;
    EXPECT_EQ(DetailsOf(status).field, field) << members;
  }
}

TEST_F(OpenAiRequestTest, RefusesPromptsThatAreNone) {
  for (const char* prompt : {"{}", "[]", "1", "[1.5]", "[-1]", "[\"a\", 1]", "[[]]", "null"}) {
    const absl::Status status =
        ParseCompletion(Json(std::string(R"({"model": "m", "prompt": )") + prompt + "}"), *text_)
            .status();
    EXPECT_EQ(DetailsOf(status).field, "prompt") << prompt << status;
  }
}

TEST_F(OpenAiRequestTest, RefusesAModelThatIsNoName) {
  for (const char* body : {"{}", R"({"model": 1})", R"({"model": ""})", R"({"model": null})"}) {
    EXPECT_EQ(DetailsOf(ReadModelName(Json(body)).status()).field, "model") << body;
  }
}

}  // namespace
}  // namespace nibble
