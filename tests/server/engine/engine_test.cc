// The engine on the demo model: what it says against what transformers said, and everything that
// happens to requests besides.

#include "server/engine/engine.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "tests/kernels/device_fixture.h"
#include "tests/support/golden_tensors.h"
#include "tests/support/running_model.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string DemoModel() { return TestDataPath("demo-model"); }

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

// What a client gets of one request.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> log_probabilities;
  std::vector<GeneratedToken> prompt;
  GenerationEnd end;
};

Answer Collect(Generation& generation) {
  Answer answer;
  for (;;) {
    generation.Wait();
    while (std::optional<GeneratedToken> token = generation.Next()) {
      if (token->of_prompt) {
        answer.prompt.push_back(*token);
      } else {
        answer.tokens.push_back(token->id);
        answer.log_probabilities.push_back(token->log_probability);
      }
    }
    if (std::optional<GenerationEnd> end = generation.end()) {
      answer.end = *end;
      return answer;
    }
  }
}

class EngineTest : public testing::TestWithParam<std::string> {
 protected:
  void Start(Format format, ServingSpec serving = CheckMode(), EngineOptions options = {},
             const std::string& path = DemoModel()) {
    engine_.reset();
    served_.reset();
    if (device_ == nullptr) {
      device_ = OpenTestDevice(GetParam());
    }
    QuantizationSpec spec;
    spec.format = format;
    served_ = std::make_unique<ServedWeights>(*device_, path, spec, serving);
    absl::StatusOr<std::unique_ptr<Engine>> engine =
        Engine::Create(*device_, *served_->weights, served_->serving->recipe,
                       served_->serving->sizes, options, nullptr);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  static ServingSpec CheckMode() {
    ServingSpec serving;
    serving.max_sequences = 8;
    serving.kv_cache_type = KvCacheType::kF32;
    return serving;
  }

  static GenerationRequest Greedy(std::vector<int32_t> prompt, int64_t tokens_max) {
    GenerationRequest request;
    request.prompt = std::move(prompt);
    request.tokens_max = tokens_max;
    request.sampling.temperature = 0;
    return request;
  }

  std::shared_ptr<Generation> Submit(GenerationRequest request) {
    auto generation = engine_->Submit(std::move(request), nullptr);
    EXPECT_TRUE(generation.ok()) << generation.status();
    return *generation;
  }
  Answer Ask(GenerationRequest request) { return Collect(*Submit(std::move(request))); }
  absl::Status Refusal(GenerationRequest request) {
    return engine_->Submit(std::move(request), nullptr).status();
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<ServedWeights> served_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(EngineTest, ContinuesAsTransformersDoes) {
  const nlohmann::json expected = ReadJson(DemoModel() + "/expected.json");
  for (const auto& [format, name] :
       {std::pair(Format::kAsStored, "source_16bit"), std::pair(Format::kNf4, "nf4")}) {
    Start(format);
    for (const nlohmann::json& greedy : expected[name]["greedy"]) {
      const auto generated = greedy["generated_ids"].get<std::vector<int32_t>>();
      GenerationRequest request =
          Greedy(greedy["prompt_ids"].get<std::vector<int32_t>>(), std::ssize(generated));
      request.stop_token_ids = {1};
      EXPECT_EQ(Ask(std::move(request)).tokens, generated) << name;
    }
  }
}

// Steps that only decode are recorded; with products in bf16 they are the daemon's main path. A
// token may differ where transformers' own two best are closer than bf16 can tell apart: nowhere in
// these texts.
TEST_P(EngineTest, ContinuesAsTransformersDoesInBf16) {
  const nlohmann::json expected = ReadJson(DemoModel() + "/expected.json");
  EngineOptions options;
  options.products.arithmetic = Arithmetic::kBf16;
  ServingSpec serving;
  serving.max_sequences = 8;
  Start(Format::kNf4, serving, options);
  for (const nlohmann::json& greedy : expected["nf4"]["greedy"]) {
    const auto generated = greedy["generated_ids"].get<std::vector<int32_t>>();
    GenerationRequest request =
        Greedy(greedy["prompt_ids"].get<std::vector<int32_t>>(), std::ssize(generated));
    request.stop_token_ids = {1};
    EXPECT_EQ(Ask(std::move(request)).tokens, generated);
  }
}

TEST_P(EngineTest, GivesTheSameAnswersToManyAtOnce) {
  Start(Format::kNf4);
  const nlohmann::json expected = ReadJson(DemoModel() + "/expected.json");
  std::vector<std::shared_ptr<Generation>> generations;
  std::vector<std::vector<int32_t>> wanted;
  for (int round = 0; round < 5; ++round) {
    for (const nlohmann::json& greedy : expected["nf4"]["greedy"]) {
      wanted.push_back(greedy["generated_ids"].get<std::vector<int32_t>>());
      GenerationRequest request =
          Greedy(greedy["prompt_ids"].get<std::vector<int32_t>>(), std::ssize(wanted.back()));
      request.stop_token_ids = {1};
      generations.push_back(Submit(std::move(request)));
    }
  }
  for (size_t index = 0; index < generations.size(); ++index) {
    EXPECT_EQ(Collect(*generations[index]).tokens, wanted[index]) << index;
  }
  EXPECT_EQ(engine_->stats().running, 0);
  EXPECT_EQ(engine_->stats().pages_used, 0);
}

// A pool of two contexts for eight sequences: some must begin anew.
TEST_P(EngineTest, GivesTheSameAnswersWhenPagesRunOut) {
  ServingSpec serving = CheckMode();
  serving.max_context_tokens = 128;
  Start(Format::kNf4, serving);
  std::vector<std::vector<int32_t>> alone;
  for (int32_t first = 0; first < 8; ++first) {
    alone.push_back(Ask(Greedy({0, 506, 300 + first}, 60)).tokens);
  }
  ASSERT_EQ(engine_->stats().preemptions, 0);
  std::vector<std::shared_ptr<Generation>> generations;
  for (int32_t first = 0; first < 8; ++first) {
    generations.push_back(Submit(Greedy({0, 506, 300 + first}, 60)));
  }
  for (size_t index = 0; index < generations.size(); ++index) {
    EXPECT_EQ(Collect(*generations[index]).tokens, alone[index]) << index;
  }
  EXPECT_GT(engine_->stats().preemptions, 0);
}

// Whatever else is in the batch, in chunks of prompts and in decoding.
TEST_P(EngineTest, GivesIdenticalAnswersIfItIsBatchInvariant) {
  for (const Arithmetic arithmetic : {Arithmetic::kFp32, Arithmetic::kBf16}) {
    EngineOptions options;
    options.products = {arithmetic, true};
    Start(Format::kNf4, CheckMode(), options);
    const auto ask = [this]() {
      GenerationRequest request = Greedy({0, 506, 300, 301}, 40);
      request.sampling.temperature = 1;
      request.sampling.seed = 7;
      return Ask(std::move(request));
    };
    const Answer alone = ask();
    std::vector<std::shared_ptr<Generation>> others;
    for (int32_t first = 0; first < 6; ++first) {
      std::vector<int32_t> prompt(static_cast<size_t>(30 * first + 2), 310 + first);
      others.push_back(Submit(Greedy(std::move(prompt), 50)));
    }
    const Answer among = ask();
    EXPECT_EQ(among.tokens, alone.tokens);
    EXPECT_EQ(among.log_probabilities, alone.log_probabilities);
    for (const auto& other : others) {
      Collect(*other);
    }
  }
}

TEST_P(EngineTest, ScoresTextsAsTransformersDoes) {
  const nlohmann::json expected = ReadJson(DemoModel() + "/expected.json");
  Start(Format::kNf4);
  // The greedy texts, scored: the sum of what each token got when it was generated.
  for (const nlohmann::json& greedy : expected["nf4"]["greedy"]) {
    auto prompt = greedy["prompt_ids"].get<std::vector<int32_t>>();
    const Answer answer = Ask(Greedy(prompt, 40));
    std::vector<int32_t> text = prompt;
    text.insert(text.end(), answer.tokens.begin(), answer.tokens.end());
    GenerationRequest request = Greedy(text, 0);
    request.score_prompt = true;
    const Answer scored = Ask(std::move(request));
    ASSERT_EQ(scored.prompt.size() + 1, text.size());
    EXPECT_TRUE(scored.tokens.empty());
    for (size_t index = 0; index < answer.tokens.size(); ++index) {
      const GeneratedToken& token = scored.prompt[prompt.size() - 1 + index];
      EXPECT_EQ(token.id, answer.tokens[index]);
      EXPECT_NEAR(token.log_probability, answer.log_probabilities[index], 1e-4);
    }
  }
}

TEST_P(EngineTest, ReusesPagesOfEqualBeginnings) {
  Start(Format::kNf4);
  std::vector<int32_t> prompt = {0};
  for (int32_t token = 0; token < 100; ++token) {
    prompt.push_back(300 + token);
  }
  const Answer first = Ask(Greedy(prompt, 20));
  EXPECT_EQ(engine_->stats().reused_tokens, 0);
  const Answer second = Ask(Greedy(prompt, 20));
  EXPECT_EQ(engine_->stats().reused_tokens, 96);  // Six full pages of 16 in 101 tokens.
  EXPECT_EQ(first.tokens, second.tokens);
  prompt[50] = 299;
  Ask(Greedy(prompt, 1));
  EXPECT_EQ(engine_->stats().reused_tokens, 96 + 48);  // Three pages before the change.
}

// Linear attention: what reuses pages needs the state at their end too.
TEST_P(EngineTest, GoesOnFromAKeptState) {
  std::vector<int32_t> prompt;
  for (int32_t token = 0; token < 40; ++token) {
    prompt.push_back(7 * token % 150);
  }
  std::vector<int32_t> longer = prompt;
  longer.insert(longer.end(), {3, 1, 4, 1, 5, 9, 2, 6});
  std::vector<int32_t> other = prompt;
  other[20] = 151;
  const std::string path = TestDataPath("models/qwen3_5");

  Start(Format::kNf4, CheckMode(), {}, path);
  const std::vector<int32_t> of_prompt = Ask(Greedy(prompt, 12)).tokens;
  const std::vector<int32_t> of_longer = Ask(Greedy(longer, 12)).tokens;
  const std::vector<int32_t> of_other = Ask(Greedy(other, 12)).tokens;
  EXPECT_EQ(engine_->stats().reused_tokens, 0);

  ServingSpec serving = CheckMode();
  serving.state_snapshots = 2;
  Start(Format::kNf4, serving, {}, path);
  EXPECT_EQ(Ask(Greedy(prompt, 12)).tokens, of_prompt);
  EXPECT_EQ(Ask(Greedy(longer, 12)).tokens, of_longer);
  EXPECT_EQ(engine_->stats().reused_tokens, 32);  // Two pages of 16, whose end has a state.
  EXPECT_EQ(Ask(Greedy(other, 12)).tokens, of_other);
  EXPECT_EQ(engine_->stats().reused_tokens, 32);  // The page before the change has none.
  EXPECT_EQ(Ask(Greedy(longer, 12)).tokens, of_longer);
  EXPECT_GT(engine_->stats().reused_tokens, 32);
}

TEST_P(EngineTest, DrawsTheSameWithTheSameSeed) {
  Start(Format::kNf4);
  const auto draw = [this](uint64_t seed) {
    GenerationRequest request = Greedy({0, 506, 507}, 30);
    request.sampling.temperature = 1.5f;
    request.sampling.seed = seed;
    return Ask(std::move(request)).tokens;
  };
  const auto first = draw(7);
  EXPECT_EQ(first, draw(7));
  EXPECT_NE(first, draw(8));
}

TEST_P(EngineTest, EndsAtLengthAndAtTheEndOfTheContext) {
  ServingSpec serving = CheckMode();
  serving.max_context_tokens = 64;
  Start(Format::kNf4, serving);
  Answer answer = Ask(Greedy({0, 506, 507}, 5));
  EXPECT_EQ(answer.tokens.size(), 5u);
  EXPECT_EQ(answer.end.reason, FinishReason::kLength);
  EXPECT_EQ(answer.end.prompt_tokens, 3);
  EXPECT_EQ(answer.end.generated_tokens, 5);
  answer = Ask(Greedy({0, 506, 507}, 1000));
  EXPECT_EQ(answer.tokens.size(), 61u);
  EXPECT_EQ(answer.end.reason, FinishReason::kLength);
  EXPECT_TRUE(answer.end.status.ok());
}

TEST_P(EngineTest, EndsAtAStopToken) {
  Start(Format::kNf4);
  const Answer all = Ask(Greedy({0, 506, 507}, 20));
  GenerationRequest request = Greedy({0, 506, 507}, 20);
  request.stop_token_ids = {all.tokens[7]};
  const Answer answer = Ask(std::move(request));
  const auto first = std::find(all.tokens.begin(), all.tokens.end(), all.tokens[7]);
  EXPECT_EQ(answer.tokens, std::vector<int32_t>(all.tokens.begin(), first + 1));
  EXPECT_EQ(answer.end.reason, FinishReason::kStop);
}

TEST_P(EngineTest, CancelsAndGivesEverythingBack) {
  Start(Format::kNf4);
  const auto generation = Submit(Greedy({0, 506, 507}, 900));
  generation->Wait();
  generation->Cancel();
  const Answer answer = Collect(*generation);
  EXPECT_TRUE(absl::IsCancelled(answer.end.status)) << answer.end.status;
  EXPECT_LT(answer.tokens.size(), 900u);
  engine_->Stop();
  EXPECT_EQ(engine_->stats().pages_used, 0);
}

TEST_P(EngineTest, PausesForAClientThatDoesNotTakeItsTokens) {
  EngineOptions options;
  options.paused_max = absl::Hours(1);  // Sanitizers make the other answer take minutes.
  Start(Format::kNf4, CheckMode(), options);
  const auto slow = Submit(Greedy({0, 506, 507}, kGenerationQueueMax + 40));
  const auto quick = Submit(Greedy({0, 506, 508}, kGenerationQueueMax + 40));
  EXPECT_EQ(Collect(*quick).tokens.size(), kGenerationQueueMax + 40);
  // The slow one has stopped at its queue's end, with 40 to go, until somebody takes them.
  EXPECT_EQ(engine_->stats().running, 1);
  EXPECT_EQ(Collect(*slow).tokens.size(), kGenerationQueueMax + 40);
}

TEST_P(EngineTest, CancelsAClientThatNeverTakesItsTokens) {
  EngineOptions options;
  options.paused_max = absl::ZeroDuration();
  Start(Format::kNf4, CheckMode(), options);
  const auto generation = Submit(Greedy({0, 506, 507}, 900));
  // Its pages are back before anything was taken.
  while (engine_->stats().running + engine_->stats().waiting > 0) {
    std::this_thread::yield();
  }
  const Answer answer = Collect(*generation);
  EXPECT_TRUE(absl::IsCancelled(answer.end.status)) << answer.end.status;
  EXPECT_EQ(answer.tokens.size(), kGenerationQueueMax);
}

TEST_P(EngineTest, EndsWhatRunsWhenItStops) {
  Start(Format::kNf4);
  const auto generation = Submit(Greedy({0, 506, 507}, 900));
  engine_->Stop();
  EXPECT_TRUE(absl::IsUnavailable(Collect(*generation).end.status));
  EXPECT_TRUE(absl::IsUnavailable(Refusal(Greedy({0}, 1))));
  engine_.reset();
  generation->Cancel();  // Long gone; nothing happens.
}

TEST_P(EngineTest, EndsAtTheDeadline) {
  Start(Format::kNf4);
  GenerationRequest request = Greedy({0, 506, 507}, 900);
  request.deadline = absl::Now() - absl::Seconds(1);
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(std::move(request)).end.status));
}

TEST_P(EngineTest, AppliesPenaltiesAndBiases) {
  Start(Format::kNf4);
  GenerationRequest request = Greedy({0, 506, 507}, 12);
  request.sampling.logit_biases = {{333, 100}};
  EXPECT_EQ(Ask(std::move(request)).tokens, std::vector<int32_t>(12, 333));
  // A token that was said once loses 2 + 2 for each time: it does not come twelve times.
  request = Greedy({0, 506, 507}, 12);
  request.sampling.logit_biases = {{333, 30}};
  request.sampling.frequency_penalty = 2;
  request.sampling.presence_penalty = 2;
  request.sampling.repetition_penalty = 10;
  const Answer answer = Ask(std::move(request));
  EXPECT_EQ(answer.tokens.front(), 333);
  EXPECT_LT(std::count(answer.tokens.begin(), answer.tokens.end(), 333), 12);
}

// Allows even ids alone.
class EvenConstraint final : public TokenConstraint {
 public:
  explicit EvenConstraint(std::vector<int32_t>& accepted) : accepted_(accepted) {}
  void FillMask(std::span<uint32_t> mask) override {
    std::fill(mask.begin(), mask.end(), 0x55555555u);
  }
  void Accept(int32_t id) override { accepted_.push_back(id); }

 private:
  std::vector<int32_t>& accepted_;
};

TEST_P(EngineTest, KeepsToAConstraint) {
  Start(Format::kNf4);
  std::vector<int32_t> accepted;
  GenerationRequest request = Greedy({0, 506, 507}, 40);
  request.constraint = std::make_unique<EvenConstraint>(accepted);
  const Answer answer = Ask(std::move(request));
  EXPECT_EQ(answer.tokens, accepted);
  EXPECT_EQ(answer.tokens.size(), 40u);
  for (const int32_t id : answer.tokens) {
    EXPECT_EQ(id % 2, 0);
  }
}

TEST_P(EngineTest, GivesTheMostLikelyTokens) {
  Start(Format::kNf4);
  GenerationRequest request = Greedy({0, 506, 507}, 3);
  request.sampling.top_log_probabilities = 5;
  const auto generation = Submit(std::move(request));
  generation->Wait();
  const std::optional<GeneratedToken> token = generation->Next();
  ASSERT_TRUE(token.has_value());
  ASSERT_EQ(token->top.size(), 5u);
  EXPECT_EQ(token->top.front().first, token->id);
  EXPECT_EQ(token->top.front().second, token->log_probability);
  for (size_t index = 1; index < token->top.size(); ++index) {
    EXPECT_LE(token->top[index].second, token->top[index - 1].second);
  }
  Collect(*generation);
}

TEST_P(EngineTest, RefusesWhatIsWrongByName) {
  Start(Format::kNf4);
  const auto refused = [this](GenerationRequest request, const char* field) {
    const absl::Status status = Refusal(std::move(request));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(DetailsOf(status).field, field) << status;
  };
  refused(Greedy({}, 1), "prompt");
  refused(Greedy(std::vector<int32_t>(1024, 5), 1), "prompt");
  refused(Greedy({0, 960}, 1), "token_ids");
  refused(Greedy({-1}, 1), "token_ids");
  refused(Greedy({0}, 0), "max_tokens");
  GenerationRequest request = Greedy({0}, 1);
  request.sampling.temperature = std::numeric_limits<float>::quiet_NaN();
  refused(std::move(request), "temperature");
  request = Greedy({0}, 1);
  request.sampling.top_p = 0;
  refused(std::move(request), "top_p");
  request = Greedy({0}, 1);
  request.sampling.logit_biases = {{960, 1}};
  refused(std::move(request), "logit_bias");
}

TEST_P(EngineTest, RefusesWhenTooManyWait) {
  EngineOptions options;
  options.waiting_max = 2;
  ServingSpec serving = CheckMode();
  serving.max_sequences = 1;
  Start(Format::kNf4, serving, options);
  const auto running = Submit(Greedy({0, 506, 507}, 900));
  running->Wait();  // It is running.
  const auto first = Submit(Greedy({0}, 1));
  const auto second = Submit(Greedy({0}, 1));
  const absl::Status status = Refusal(Greedy({0}, 1));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(DetailsOf(status).reason, "REQUEST_QUEUE_FULL");
  running->Cancel();
  EXPECT_EQ(Collect(*first).tokens.size(), 1u);
  EXPECT_EQ(Collect(*second).tokens.size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Host, EngineTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, EngineTest, testing::ValuesIn(CudaDevices()), DeviceTestName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(EngineTest);

}  // namespace
}  // namespace nibble
