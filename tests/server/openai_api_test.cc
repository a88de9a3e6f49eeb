// OpenAI's API over a real socket, answered by the demo model: what it says against what
// transformers said, and everything that happens to requests besides.

#include "server/openai_api.h"

#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "tests/server/openai_fixture.h"

namespace nibble {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

// What transformers generated: 0 continues "Once upon a time", 2 is an answer to kQuestion.
Json Golden(size_t index) {
  std::ifstream file(NIBBLE_TEST_DATA "/demo-model/expected.json");
  return Json::parse(file)["nf4"]["greedy"][index];
}

constexpr absl::string_view kOnce = R"({"model": "demo", "prompt": "Once upon a time")";
constexpr absl::string_view kQuestion =
    R"({"model": "demo", "messages": [{"role": "user", "content": "What is six plus seven?"}])";

std::string With(absl::string_view body, absl::string_view more) {
  return absl::StrCat(body, more, "}");
}

class OpenAiApiTest : public OpenAiFixture {};

TEST_F(OpenAiApiTest, CompletesAsTransformersDoes) {
  const Reply reply = Complete(With(kOnce, R"(, "max_tokens": 200)"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "demo");
  EXPECT_THAT(json["id"].get<std::string>(), StartsWith("cmpl-"));
  ASSERT_EQ(json["choices"].size(), 1u);
  EXPECT_EQ(json["choices"][0]["text"], Golden(0)["text"]);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(json["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["prompt_tokens"], Golden(0)["prompt_ids"].size());
  EXPECT_EQ(json["usage"]["completion_tokens"], Golden(0)["generated_ids"].size());
  EXPECT_EQ(json["usage"]["total_tokens"],
            Golden(0)["prompt_ids"].size() + Golden(0)["generated_ids"].size());
}

TEST_F(OpenAiApiTest, ChatsAsTransformersDoes) {
  const Reply reply = Chat(With(kQuestion, ""));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_THAT(json["id"].get<std::string>(), StartsWith("chatcmpl-"));
  EXPECT_EQ(json["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(json["choices"][0]["message"]["content"], Golden(2)["text"]);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["usage"]["prompt_tokens"], Golden(2)["prompt_ids"].size());
}

TEST_F(OpenAiApiTest, StreamsACompletionToTheSameText) {
  const Reply reply = Complete(With(kOnce, R"(, "max_tokens": 200, "stream": true)"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_THAT(reply.head, HasSubstr("Content-Type: text/event-stream"));
  const std::vector<std::string> events = reply.events();
  ASSERT_GT(events.size(), 2u);
  EXPECT_EQ(events.back(), "[DONE]");
  std::string text;
  for (size_t index = 0; index + 1 < events.size(); ++index) {
    const Json json = Json::parse(events[index]);
    EXPECT_FALSE(json.contains("usage"));
    text += json["choices"][0]["text"].get<std::string>();
    EXPECT_EQ(json["choices"][0]["finish_reason"].is_null(), index + 2 < events.size());
  }
  EXPECT_EQ(text, Golden(0)["text"]);
}

TEST_F(OpenAiApiTest, StreamsAChatToTheSameTextWithUsageAtTheEnd) {
  const Reply reply =
      Chat(With(kQuestion, R"(, "stream": true, "stream_options": {"include_usage": true})"));
  const std::vector<std::string> events = reply.events();
  ASSERT_GT(events.size(), 2u) << reply.body;
  EXPECT_EQ(Json::parse(events[0])["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(Json::parse(events[0])["object"], "chat.completion.chunk");
  const Json usage = Json::parse(events[events.size() - 2]);
  EXPECT_TRUE(usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"], Golden(2)["generated_ids"].size());
  std::string text;
  for (size_t index = 0; index + 2 < events.size(); ++index) {
    const Json json = Json::parse(events[index]);
    EXPECT_TRUE(json.at("usage").is_null());
    text += json["choices"][0]["delta"].value("content", "");
    EXPECT_EQ(json["choices"][0]["delta"].contains("role"), index == 0);
  }
  EXPECT_EQ(text, Golden(2)["text"]);
}

TEST_F(OpenAiApiTest, GivesNAnswersToEachPrompt) {
  const Json json = Complete(R"({"model": "demo", "n": 2, "max_tokens": 200,
                                 "prompt": ["Once upon a time", [0, 506, 507, 263, 392]]})")
                        .json();
  ASSERT_EQ(json["choices"].size(), 4u) << json;
  for (size_t index = 0; index < 4; ++index) {
    EXPECT_EQ(json["choices"][index]["index"], index);
    EXPECT_EQ(json["choices"][index]["text"], Golden(0)["text"]);
  }
  EXPECT_EQ(json["usage"]["prompt_tokens"], 2 * Golden(0)["prompt_ids"].size());
  EXPECT_EQ(json["usage"]["completion_tokens"], 4 * Golden(0)["generated_ids"].size());
}

TEST_F(OpenAiApiTest, DrawsTheSameAnswerFromTheSameSeed) {
  const std::string body = With(kOnce, R"(, "temperature": 1, "seed": 5, "n": 2)");
  const Json first = Complete(body).json()["choices"];
  EXPECT_EQ(Complete(body).json()["choices"], first);
  EXPECT_NE(first[0]["text"], first[1]["text"]);
}

TEST_F(OpenAiApiTest, StopsBeforeAStopStringAndAtTheLength) {
  const std::string text = Golden(0)["text"];
  const Json stopped =
      Complete(With(kOnce, R"(, "max_tokens": 200, "stop": "a black", "stop": "x")")).json();
  EXPECT_TRUE(stopped.contains("error")) << "a member that stands twice";
  const Json choice =
      Complete(With(kOnce, R"(, "max_tokens": 200, "stop": ["nowhere", "Jack"])")).json();
  EXPECT_EQ(choice["choices"][0]["text"], text.substr(0, text.find("Jack")));
  EXPECT_EQ(choice["choices"][0]["finish_reason"], "stop");
  const Json shorter = Complete(With(kOnce, R"(, "max_tokens": 3)")).json();
  EXPECT_EQ(shorter["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(shorter["usage"]["completion_tokens"], 3);
  EXPECT_THAT(text, StartsWith(shorter["choices"][0]["text"].get<std::string>()));
}

TEST_F(OpenAiApiTest, TellsLogProbabilitiesOfWhatItEchoes) {
  const Json json =
      Complete(With(kOnce, R"(, "max_tokens": 4, "echo": true, "logprobs": 2)")).json();
  const std::string text = json["choices"][0]["text"];
  const Json logprobs = json["choices"][0]["logprobs"];
  EXPECT_THAT(text, StartsWith("Once upon a time there"));
  ASSERT_EQ(logprobs["tokens"].size(), Golden(0)["prompt_ids"].size() + 4) << json;
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  for (size_t index = 1; index < logprobs["tokens"].size(); ++index) {
    const std::string token = logprobs["tokens"][index];
    EXPECT_EQ(text.substr(logprobs["text_offset"][index], token.size()), token);
    EXPECT_LE(logprobs["token_logprobs"][index].get<double>(), 0);
    EXPECT_EQ(logprobs["top_logprobs"][index].size(), 2u);
  }
}

TEST_F(OpenAiApiTest, TellsLogProbabilitiesOfAChat) {
  const Json json = Chat(With(kQuestion, R"(, "logprobs": true, "top_logprobs": 2)")).json();
  std::string text;
  for (const Json& token : json["choices"][0]["logprobs"]["content"]) {
    text += token["token"].get<std::string>();
    EXPECT_EQ(token["top_logprobs"].size(), 2u);
    EXPECT_EQ(token["top_logprobs"][0]["token"], token["token"]) << "greedy";
    EXPECT_EQ(token["bytes"].size(), token["token"].get<std::string>().size()) << "ASCII";
  }
  EXPECT_EQ(text, Golden(2)["text"]) << "and nothing of the token that ended it";
}

TEST_F(OpenAiApiTest, ListsItsModels) {
  const Json list = Get("/v1/models").json();
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], "demo");
  EXPECT_EQ(Get("/v1/models/de%6Do").json(), list["data"][0]);
  EXPECT_EQ(Get("/v1/models/none").status, 404);
  EXPECT_EQ(Get("/v1/models/none").json()["error"]["code"], "model_not_found");
  EXPECT_EQ(Get("/v1/models/%x").status, 400);
}

TEST_F(OpenAiApiTest, RefusesInTheFormOfOpenAi) {
  const Reply unknown = Complete(R"({"model": "none", "prompt": "x"})");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.json()["error"]["code"], "model_not_found");
  EXPECT_EQ(unknown.json()["error"]["param"], "model");
  const Reply field = Chat(With(kQuestion, R"(, "store": true, "stream": true)"));
  EXPECT_EQ(field.status, 400) << "also of a stream";
  EXPECT_EQ(field.json()["error"]["type"], "invalid_request_error");
  EXPECT_EQ(field.json()["error"]["param"], "store");
  const Reply range = Complete(With(kOnce, R"(, "temperature": -1)"));
  EXPECT_EQ(range.status, 400) << "what the engine refuses";
  EXPECT_EQ(range.json()["error"]["param"], "temperature");
  EXPECT_EQ(Complete("{").status, 400);
  EXPECT_EQ(Complete("").status, 400);
  EXPECT_EQ(Get("/v1/completions").status, 405);
  EXPECT_EQ(Get("/v1/embeddings").status, 404);
  EXPECT_EQ(Send("POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                 "Connection: close\r\n\r\n")
                .status,
            405);
  EXPECT_EQ(Send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
                 "Content-Length: 2\r\nConnection: close\r\n\r\n{}")
                .status,
            415)
      << "what a web page may send unasked";
}

TEST_F(OpenAiApiTest, RefusesAModelOfWeightsAlone) {
  Load("bare", true);
  const Reply reply = Complete(R"({"model": "bare", "prompt": "x"})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(reply.json()["error"]["message"].get<std::string>(), HasSubstr("weights"));
}

TEST_F(OpenAiApiTest, RefusesABodyThatIsTooLargeAndSaysSo) {
  const std::string body =
      With(kOnce, absl::StrCat(", \"user\": \"", std::string(2 << 20, 'x'), "\""));
  LoopbackClient client(port_);
  client.Send(PostText("/v1/completions", body));
  EXPECT_EQ(ParseReply(client.ReadAll()).status, 413);
}

TEST_F(OpenAiApiTest, AnswersOneAfterTheOtherOnOneConnection) {
  LoopbackClient client(port_);
  const std::string stream =
      PostText("/v1/chat/completions", With(kQuestion, R"(, "stream": true)"), "");
  // The second is there while the first is answered.
  ASSERT_TRUE(client.Send(stream + PostText("/v1/chat/completions", With(kQuestion, ""))));
  const std::string both = client.ReadAll();
  const size_t second = both.find("HTTP/1.1", 1);
  ASSERT_NE(second, std::string::npos) << both;
  EXPECT_EQ(ParseReply(both.substr(0, second)).events().back(), "[DONE]");
  EXPECT_EQ(ParseReply(both.substr(second)).json()["choices"][0]["message"]["content"],
            Golden(2)["text"]);
}

TEST_F(OpenAiApiTest, StreamsToAClientThatKnowsNoChunks) {
  std::string request = PostText("/v1/chat/completions", With(kQuestion, R"(, "stream": true)"));
  request.replace(request.find("HTTP/1.1"), 8, "HTTP/1.0");
  const Reply reply = Send(request);
  EXPECT_THAT(reply.head, Not(HasSubstr("chunked")));
  EXPECT_EQ(reply.events().back(), "[DONE]");
}

// 16 answers of 900 tokens take the host far longer than a client needs to go.
constexpr absl::string_view kLong =
    R"(, "max_tokens": 900, "n": 16, "logit_bias": {"1": -100}, "stream": )";

TEST_F(OpenAiApiTest, CancelsWhenTheClientOfAStreamIsGone) {
  {
    LoopbackClient client(port_);
    ASSERT_TRUE(client.Send(PostText("/v1/completions", With(kOnce, absl::StrCat(kLong, "true")))));
    EXPECT_THAT(client.ReadUntil("data: "), HasSubstr("200 OK"));
  }
  for (const absl::Status& end : watcher_.AwaitEnds(16)) {
    EXPECT_EQ(end.code(), absl::StatusCode::kCancelled) << end;
  }
}

TEST_F(OpenAiApiTest, CancelsWhenAClientThatWaitsIsGone) {
  {
    LoopbackClient client(port_);
    ASSERT_TRUE(
        client.Send(PostText("/v1/completions", With(kOnce, absl::StrCat(kLong, "false")))));
    watcher_.AwaitGenerating();
  }
  for (const absl::Status& end : watcher_.AwaitEnds(16)) {
    EXPECT_EQ(end.code(), absl::StatusCode::kCancelled) << end;
  }
}

TEST_F(OpenAiApiTest, TellsAStreamThatItsModelIsGone) {
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(PostText("/v1/completions", With(kOnce, absl::StrCat(kLong, "true")))));
  const std::string begun = client.ReadUntil("data: ");
  Awaited<absl::StatusOr<int64_t>> unloaded;
  registry_->Unload("demo", absl::ZeroDuration(),
                    [&](absl::StatusOr<int64_t> bytes) { unloaded.Set(std::move(bytes)); });
  const std::vector<std::string> events = ParseReply(begun + client.ReadAll()).events();
  EXPECT_EQ(Json::parse(events.back())["error"]["type"], "server_error");
  EXPECT_TRUE(unloaded.Await().ok());
}

TEST_F(OpenAiApiTest, EndsWhileItAnswers) {
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(PostText("/v1/completions", With(kOnce, absl::StrCat(kLong, "true")))));
  ASSERT_THAT(client.ReadUntil("data: "), HasSubstr("200 OK"));
  listener_.reset();
  server_.reset();
  EXPECT_THAT(client.ReadAll(), Not(EndsWith("0\r\n\r\n")));
}

}  // namespace
}  // namespace nibble
