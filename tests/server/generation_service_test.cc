// Text over gRPC: the demo model says what transformers says, and everything that happens to calls.

#include "server/generation_service.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "server/engine/text/text_generation.h"
#include "tests/server/front_fixture.h"
#include "tests/support/marked_demo.h"

namespace nibble {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

const std::string kDemoModel = NIBBLE_TEST_DATA "/demo-model";

class GenerationServiceTest : public FrontFixture {
 protected:
  GenerationServiceTest() {
    registry_options_.model_roots.push_back(NIBBLE_TEST_DATA);
    Start();
    generation_ = v1::GenerationService::NewStub(channel_);
    std::ifstream file(kDemoModel + "/expected.json");
    expected_ = nlohmann::json::parse(file)["nf4"];
  }

  void LoadDemo(v1::WeightFormat format = v1::NF4) {
    v1::LoadModelRequest request = LoadRequestFor("demo", "demo-model");
    request.mutable_quantization()->set_format(format);
    request.mutable_serving()->set_max_sequences(4);
    request.mutable_serving()->set_kv_cache_dtype(v1::F32);
    const grpc::Status status = Load(request);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }

  static v1::GenerateRequest Greedy(const std::string& prompt, uint64_t tokens_max) {
    v1::GenerateRequest request;
    request.set_model("demo");
    request.set_prompt(prompt);
    request.set_max_tokens(tokens_max);
    request.set_temperature(0);
    return request;
  }

  struct Answer {
    grpc::Status status;
    std::string text;
    std::vector<int32_t> token_ids;
    std::string finish_reason;
    v1::Usage usage;
    std::vector<std::string> texts = std::vector<std::string>(kAnswersMax);
  };

  Answer Ask(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = generation_->Generate(&context, request);
    Answer answer;
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
      answer.text += response.text();
      answer.texts[response.index()] += response.text();
      answer.token_ids.insert(answer.token_ids.end(), response.token_ids().begin(),
                              response.token_ids().end());
      if (!response.finish_reason().empty()) {
        answer.finish_reason = response.finish_reason();
        answer.usage = response.usage();
      }
    }
    answer.status = reader->Finish();
    return answer;
  }

  grpc::Status Score(const v1::ScoreRequest& request, v1::ScoreResponse& response) {
    grpc::ClientContext context;
    return generation_->Score(&context, request, &response);
  }

  // Of the model; -1 while it is not told.
  double Metric(const std::string& name) const {
    const std::string text = HttpGet(front_->http_address().port, "/metrics");
    const std::string series = "\n" + name + "{model=\"demo\"} ";
    const size_t found = text.find(series);
    double value = -1;
    if (found != std::string::npos) {
      const size_t begin = found + series.size();
      EXPECT_TRUE(absl::SimpleAtod(text.substr(begin, text.find('\n', begin) - begin), &value));
    }
    return value;
  }

  // Gives up after far longer than anything here takes.
  void AwaitMetric(const std::string& name, double value) const {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (Metric(name) != value) {
      ASSERT_LT(absl::Now(), deadline) << name << " is " << Metric(name);
      absl::SleepFor(absl::Milliseconds(10));
    }
  }

  nlohmann::json expected_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
};

TEST_F(GenerationServiceTest, GeneratesWhatTransformersDoes) {
  LoadDemo();
  for (const nlohmann::json& greedy : expected_["greedy"]) {
    v1::GenerateRequest request = Greedy("", greedy["generated_ids"].size());
    for (const int32_t id : greedy["prompt_ids"]) {
      request.add_token_ids(id);
    }
    const Answer answer = Ask(request);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.token_ids, greedy["generated_ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(answer.usage.generated_tokens(), greedy["generated_ids"].size());
  }
}

TEST_F(GenerationServiceTest, ReadsMessagesThroughTheChatTemplate) {
  LoadDemo();
  v1::GenerateRequest request = Greedy("", 40);
  v1::Message& message = *request.add_messages();
  message.set_role("user");
  message.set_content("Tell me a story about a blue map.");
  const Answer chat = Ask(request);
  ASSERT_TRUE(chat.status.ok()) << chat.status.error_message();
  // What the held-out texts look like.
  request = Greedy("<|user|>\nTell me a story about a blue map.<|end|>\n<|assistant|>\n", 40);
  request.set_parse_special(true);
  EXPECT_EQ(chat.text, Ask(request).text);
}

// Perplexity over texts that the model has not seen, as transformers computed it: within 0.1 %.
TEST_F(GenerationServiceTest, ScoresHeldOutTextsAsTransformersDoes) {
  for (const auto& [format, name] :
       {std::pair(v1::NF4, "nf4"), std::pair(v1::AS_STORED, "source_16bit")}) {
    LoadDemo(format);
    std::ifstream expected_file(kDemoModel + "/expected.json");
    const nlohmann::json expected = nlohmann::json::parse(expected_file)[name];
    std::ifstream texts(kDemoModel + "/heldout.jsonl");
    double sum = 0;
    int64_t count = 0;
    size_t index = 0;
    for (std::string line; std::getline(texts, line); ++index) {
      v1::TokenizeRequest tokenize;
      tokenize.set_model("demo");
      tokenize.set_text(nlohmann::json::parse(line)["text"].get<std::string>());
      tokenize.set_parse_special(true);
      v1::TokenizeResponse tokens;
      grpc::ClientContext context;
      ASSERT_TRUE(generation_->Tokenize(&context, tokenize, &tokens).ok());
      v1::ScoreRequest request;
      request.set_model("demo");
      *request.mutable_token_ids() = tokens.token_ids();
      v1::ScoreResponse response;
      const grpc::Status status = Score(request, response);
      ASSERT_TRUE(status.ok()) << status.error_message();
      ASSERT_EQ(response.log_probabilities_size() + 1, tokens.token_ids_size());
      double text_sum = 0;
      for (const float value : response.log_probabilities()) {
        text_sum += double{value};
      }
      if (index < expected["log_likelihood_first8"].size()) {
        const double wanted = expected["log_likelihood_first8"][index];
        EXPECT_NEAR(text_sum, wanted, 1e-3 * std::fabs(wanted)) << name << " text " << index;
      }
      sum += text_sum;
      count += response.log_probabilities_size();
    }
    EXPECT_EQ(count, expected["tokens"].get<int64_t>());
    const double wanted = expected["perplexity"];
    EXPECT_NEAR(std::exp(-sum / static_cast<double>(count)), wanted, 1e-3 * wanted) << name;
    v1::UnloadModelResponse unloaded;
    ASSERT_TRUE(Unload("demo", &unloaded).ok());
  }
}

TEST_F(GenerationServiceTest, TokenizesAndBack) {
  LoadDemo();
  v1::TokenizeRequest request;
  request.set_model("demo");
  request.set_text("Once upon a time");
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(generation_->Tokenize(&context, request, &response).ok());
  EXPECT_EQ(response.tokens_size(), response.token_ids_size());
  v1::DetokenizeRequest back;
  back.set_model("demo");
  *back.mutable_token_ids() = response.token_ids();
  back.set_skip_special_tokens(true);
  v1::DetokenizeResponse text;
  grpc::ClientContext back_context;
  ASSERT_TRUE(generation_->Detokenize(&back_context, back, &text).ok());
  EXPECT_EQ(text.text(), "Once upon a time");
}

TEST_F(GenerationServiceTest, EndsBeforeAStopString) {
  LoadDemo();
  const Answer all = Ask(Greedy("Once upon a time", 60));
  ASSERT_GT(all.text.size(), 40u);
  v1::GenerateRequest request = Greedy("Once upon a time", 60);
  const std::string stop = all.text.substr(20, 9);  // Across the borders of tokens.
  request.add_stop(stop);
  const Answer answer = Ask(request);
  EXPECT_EQ(answer.text, all.text.substr(0, all.text.find(stop)));
  EXPECT_EQ(answer.finish_reason, "stop");
}

TEST_F(GenerationServiceTest, KeepsToAJsonSchema) {
  LoadDemo();
  v1::GenerateRequest request = Greedy("Once upon a time", 120);
  request.mutable_response_format()->set_json_schema(
      R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
          "count": {"type": "integer", "minimum": 3, "maximum": 40}}, "required": ["name", "count"],
          "additionalProperties": false})");
  const Answer answer = Ask(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  const nlohmann::json json = nlohmann::json::parse(answer.text, nullptr, false);
  ASSERT_TRUE(json.is_object()) << answer.text;
  EXPECT_EQ(json.size(), 2u);
  EXPECT_LE(json["name"].get<std::string>().size(), 48u);
  EXPECT_GE(json["count"].get<int>(), 3);
  EXPECT_LE(json["count"].get<int>(), 40);
  EXPECT_EQ(answer.finish_reason, "stop");

  request.mutable_response_format()->set_json_schema(R"({"type": "string", "contains": 3})");
  EXPECT_EQ(Ask(request).status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(GenerationServiceTest, GivesSeveralAnswers) {
  LoadDemo();
  v1::GenerateRequest request = Greedy("Once upon a time", 12);
  request.set_temperature(1.5);
  request.set_seed(11);
  request.set_n(3);
  const Answer answer = Ask(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_NE(answer.texts[0], answer.texts[1]);
  EXPECT_NE(answer.texts[1], answer.texts[2]);
  EXPECT_EQ(answer.texts[3], "");
  request.set_n(1);
  request.set_seed(12);
  EXPECT_EQ(Ask(request).texts[0], answer.texts[1]) << "answer i is drawn with seed + i";
}

TEST_F(GenerationServiceTest, RefusesByName) {
  LoadDemo();
  const auto refused = [this](const v1::GenerateRequest& request) {
    const Answer answer = Ask(request);
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << answer.status.error_message();
    return BadFieldOf(answer.status);
  };
  EXPECT_EQ(refused(Greedy("", 5)), "prompt");
  EXPECT_EQ(refused(Greedy("a", 0)), "max_tokens");
  v1::GenerateRequest request = Greedy("a", 5);
  request.set_temperature(std::nanf(""));
  EXPECT_EQ(refused(request), "temperature");
  request = Greedy("a", 5);
  for (int i = 0; i < 10'000; ++i) {
    request.add_stop("x");
  }
  EXPECT_EQ(refused(request), "stop");
  request = Greedy("", 5);
  request.add_token_ids(960);
  EXPECT_EQ(refused(request), "token_ids");
  request = Greedy("a", 5);
  request.set_n(17);
  EXPECT_EQ(refused(request), "n");
  std::string long_text;
  for (int i = 0; i < 3000; ++i) {
    long_text += "once upon ";
  }
  EXPECT_EQ(refused(Greedy(long_text, 5)), "prompt");
}

TEST_F(GenerationServiceTest, SaysWhyAModelDoesNotAnswer) {
  EXPECT_EQ(Ask(Greedy("a", 5)).status.error_code(), grpc::StatusCode::NOT_FOUND);
  v1::LoadModelRequest request = LoadRequestFor("demo", "demo-model");
  request.mutable_serving()->set_weights_only(true);
  ASSERT_TRUE(Load(request).ok());
  const Answer answer = Ask(Greedy("a", 5));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("weights_only"));
}

// The tiny checkpoint has no tokenizer.
TEST_F(GenerationServiceTest, ServesTokenIdsWithoutATokenizer) {
  ASSERT_TRUE(Load(LoadRequestFor("demo", "tiny")).ok());
  EXPECT_EQ(Ask(Greedy("a", 5)).status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  v1::GenerateRequest request = Greedy("", 5);
  request.add_token_ids(1);
  const Answer answer = Ask(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.token_ids.size(), 5u);
  EXPECT_EQ(answer.text, "");
}

TEST_F(GenerationServiceTest, GivesEverythingBackWhenTheClientLeaves) {
  LoadDemo();
  {
    grpc::ClientContext context;
    const auto reader = generation_->Generate(&context, Greedy("Once upon a time", 900));
    v1::GenerateResponse response;
    ASSERT_TRUE(reader->Read(&response));
    context.TryCancel();
    while (reader->Read(&response)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  v1::UnloadModelResponse unloaded;
  ASSERT_TRUE(Unload("demo", &unloaded).ok());
  EXPECT_EQ(GetMemory().devices(0).reserved_bytes(), 0u);
}

TEST_F(GenerationServiceTest, CancelsAScoreWhoseClientIsGone) {
  LoadDemo();
  // Answers that nobody reads keep every place for far longer than a cancellation takes.
  grpc::ClientContext context;
  v1::GenerateRequest request = Greedy("Once upon a time", 900);
  request.set_ignore_eos(true);
  request.set_n(4);
  request.set_logprobs(20);
  const auto reader = generation_->Generate(&context, request);
  AwaitMetric("nibble_requests_running", 4);
  grpc::ClientContext score_context;
  grpc::Status status;
  std::thread client([&] {
    v1::ScoreRequest score;
    score.set_model("demo");
    score.set_prompt("Once upon a time");
    v1::ScoreResponse response;
    status = generation_->Score(&score_context, score, &response);
  });
  AwaitMetric("nibble_requests_waiting", 1);
  score_context.TryCancel();
  client.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  AwaitMetric("nibble_requests_waiting", 0);
  EXPECT_EQ(Metric("nibble_requests_running"), 4) << "it did not wait for its turn";
  context.TryCancel();
  reader->Finish();
}

// The demo model with the marks of others for two of the tokens of its answer.
TEST_F(GenerationServiceTest, TakesAnswersApartIfItIsAsked) {
  WriteMarkedDemo({.renames = {{kSix, R"(<tool_call>{"name": "add", "arguments": {"note": ")"},
                               {kThirteen, R"("}}</tool_call>)"}},
                   .mention = "<tool_call>"},
                  root_.path() / "caller");
  WriteMarkedDemo({.renames = {{kSix, "<think>"}, {kThirteen, "</think>"}}, .mention = "</think>"},
                  root_.path() / "thinker");
  v1::GenerateRequest request;
  request.set_temperature(0);
  v1::Message& message = *request.add_messages();
  message.set_role("user");
  message.set_content("What is six plus seven?");
  request.set_tools_json(R"([{"type": "function", "function": {"name": "add"}}])");
  const auto ask = [&](const std::string& model, bool split) {
    request.set_model(model);
    request.set_split_answer(split);
    grpc::ClientContext context;
    const auto reader = generation_->Generate(&context, request);
    v1::GenerateResponse whole;
    v1::GenerateResponse piece;
    while (reader->Read(&piece)) {
      whole.set_text(whole.text() + piece.text());
      whole.set_reasoning(whole.reasoning() + piece.reasoning());
      whole.set_tool_calls_json(whole.tool_calls_json() + piece.tool_calls_json());
      whole.set_finish_reason(piece.finish_reason());
    }
    EXPECT_TRUE(reader->Finish().ok());
    return whole;
  };
  for (const char* const model : {"caller", "thinker"}) {
    v1::LoadModelRequest load = LoadRequestFor(model, model);
    load.mutable_serving()->set_max_sequences(4);
    load.mutable_serving()->set_kv_cache_dtype(v1::F32);
    ASSERT_TRUE(Load(load).ok());
  }
  const v1::GenerateResponse thought = ask("thinker", true);
  EXPECT_EQ(thought.reasoning(), "plus seven is");
  EXPECT_EQ(thought.text(), ".");
  EXPECT_EQ(thought.finish_reason(), "stop");
  EXPECT_EQ(ask("thinker", false).text(), "<think> plus seven is</think>.");
  const v1::GenerateResponse call = ask("caller", true);
  const nlohmann::json calls = nlohmann::json::parse(call.tool_calls_json());
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0]["function"]["name"], "add");
  EXPECT_EQ(calls[0]["function"]["arguments"], R"({"note": " plus seven is"})");
  EXPECT_EQ(call.text(), ".");
  EXPECT_EQ(call.finish_reason(), "tool_calls");
  EXPECT_EQ(ask("caller", false).finish_reason(), "stop");
}

TEST_F(GenerationServiceTest, EndsAnswersWhenTheModelIsUnloaded) {
  LoadDemo();
  grpc::ClientContext context;
  v1::GenerateRequest request = Greedy("Once upon a time", 900);
  request.set_ignore_eos(true);
  const auto reader = generation_->Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  grpc::ClientContext unload_context;
  v1::UnloadModelRequest unload;
  unload.set_model("demo");
  unload.mutable_drain_timeout();  // 0: at once.
  v1::UnloadModelResponse unloaded;
  ASSERT_TRUE(models_->UnloadModel(&unload_context, unload, &unloaded).ok());
  while (reader->Read(&response)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.error_code() == grpc::StatusCode::UNAVAILABLE || status.ok())
      << status.error_message();
  EXPECT_EQ(GetMemory().devices(0).reserved_bytes(), 0u);
}

TEST_F(GenerationServiceTest, CountsWhatItSays) {
  LoadDemo();
  ASSERT_TRUE(Ask(Greedy("Once upon a time", 7)).status.ok());
  const std::string metrics = GetMetrics();
  EXPECT_THAT(metrics, HasSubstr("nibble_generated_tokens_total{model=\"demo\"} 7"));
  EXPECT_THAT(metrics, HasSubstr("nibble_requests_running{model=\"demo\"} 0"));
  EXPECT_THAT(metrics, HasSubstr("nibble_request_duration_seconds_count{model=\"demo\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("nibble_time_to_first_token_seconds_count{model=\"demo\"} 1"));
  v1::UnloadModelResponse unloaded;
  ASSERT_TRUE(Unload("demo", &unloaded).ok());
  EXPECT_THAT(GetMetrics(), Not(HasSubstr("model=\"demo\"")));
}

}  // namespace
}  // namespace nibble
