// Every family's logits against those that transformers computed, on every device.

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/kernels/device_fixture.h"
#include "tests/support/golden_tensors.h"
#include "tests/support/running_model.h"

namespace nibble {
namespace {

// Of the range of the logits. fp32 and fp64 arithmetic agree within 1e-6 of it, and these models
// amplify rounding; a wrong mask, rotation or norm is off by far more (tests/data/README.md).
constexpr double kTolerance = 1e-4;
// Where factors are rounded to bf16: each product is off by at most 2^-7 of itself, of random sign,
// so a sum of hundreds by a tenth of that as a rule, layer upon layer. Found with bf16 tiles: 0.003
// to 0.009.
constexpr double kFastTolerance = 0.02;
constexpr ProductOptions kFast = {Arithmetic::kBf16, false};
constexpr int64_t kContextTokens = 96;  // A little more than the longest prompt and its answer.

ServingSpec CheckMode(int64_t chunk = 96) {
  ServingSpec serving;
  serving.max_context_tokens = kContextTokens;
  serving.max_sequences = 2;
  serving.kv_cache_type = KvCacheType::kF32;
  serving.prefill_chunk_tokens = chunk;
  return serving;
}

// Models for which no small error of sums bounds that of logits: a router whose choice is close
// takes another expert for a rounding, and the delta rule of a model with random weights amplifies
// roundings (products to 2^-11 give 0.008 of the range, to 2^-8 0.03 as stored and 0.17 in NF4;
// fp32 less than 1e-5; with the gates' products in fp32 the same).
bool AmplifiesRounding(const std::string& path) {
  return path.find("moe") != std::string::npos || path.find("mixtral") != std::string::npos ||
         path.find("qwen3_5") != std::string::npos;
}

struct GoldenModel {
  std::string path;      // Of the checkpoint.
  std::string expected;  // Of the logits.
  std::string suffix;    // Of their names.
  Format format = Format::kAsStored;
  bool keep_rest = false;
};

using LogitsCase = std::tuple<std::string, GoldenModel>;  // Device, model.

class GoldenLogitsTest : public ::testing::TestWithParam<LogitsCase> {
 protected:
  GoldenLogitsTest()
      : device_(OpenTestDevice(std::get<0>(GetParam()))),
        expected_(std::get<1>(GetParam()).expected) {
    spec_.format = std::get<1>(GetParam()).format;
    spec_.keep_unquantized_rest = std::get<1>(GetParam()).keep_rest;
  }

  std::vector<int32_t> Prompt(int index) const {
    return expected_.at(absl::StrCat("input_ids.", index)).As<int32_t>();
  }

  // The largest difference from what is expected, as a share of the range of the logits.
  double Error(int index, const std::vector<std::vector<float>>& found) const {
    const std::vector<float> logits =
        expected_.at(absl::StrCat("logits", std::get<1>(GetParam()).suffix, ".", index))
            .As<float>();
    const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
    double largest = 0;
    size_t place = 0;
    for (const std::vector<float>& row : found) {
      for (const float value : row) {
        const double difference = std::fabs(double{value} - double{logits.at(place++)});
        largest = std::isnan(difference) ? 1 : std::max(largest, difference);
      }
    }
    EXPECT_EQ(place, logits.size());
    return largest / (double{*most} - double{*least});
  }

  // Greedy tokens of the second prompt, as long as the margin is above the error of two logits.
  void ExpectGreedyTokens(const ProductOptions& products, double tolerance) {
    RunningModel model(*device_, path(), spec_, CheckMode(), products);
    const std::string& suffix = std::get<1>(GetParam()).suffix;
    const auto greedy = expected_.at("greedy" + suffix).As<int32_t>();
    const auto margins = expected_.at(absl::StrCat("greedy", suffix, "_margin")).As<float>();
    const auto logits = expected_.at(absl::StrCat("logits", suffix, ".1")).As<float>();
    const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
    const double error = 2 * tolerance * (double{*most} - double{*least});
    std::vector<int32_t> tokens = Prompt(1);
    int64_t position = 0;
    for (size_t index = 0; index < greedy.size() && double{margins[index]} > error; ++index) {
      const int64_t count = std::ssize(tokens);
      const std::vector<float> row = model.Step({{0, tokens, position, 1}}).front();
      position += count;
      const auto best = std::max_element(row.begin(), row.end()) - row.begin();
      ASSERT_EQ(best, greedy[index]) << "token " << index;
      tokens = {greedy[index]};
    }
  }

  const std::string& path() const { return std::get<1>(GetParam()).path; }

  std::unique_ptr<Device> device_;
  const GoldenTensors expected_;
  QuantizationSpec spec_;
};

TEST_P(GoldenLogitsTest, OfEveryPromptAreWithinRounding) {
  RunningModel model(*device_, path(), spec_, CheckMode());
  for (int index = 0; index < 3; ++index) {
    const std::vector<int32_t> prompt = Prompt(index);
    EXPECT_LT(Error(index, model.Logits(0, prompt, std::ssize(prompt))), kTolerance)
        << "prompt " << index;
  }
}

TEST_P(GoldenLogitsTest, AreTheSameInChunks) {
  RunningModel model(*device_, path(), spec_, CheckMode());
  EXPECT_LT(Error(2, model.Logits(1, Prompt(2), 7)), kTolerance);
}

TEST_P(GoldenLogitsTest, OfTheLastTokenAreTheSameInOneStep) {
  RunningModel model(*device_, path(), spec_, CheckMode());
  const std::vector<int32_t> prompt = Prompt(2);
  auto found = model.Logits(0, {prompt.begin(), prompt.end() - 1}, 32);
  const auto last = model.Step({{1, prompt, 0, 1}});
  found.push_back(last.front());
  EXPECT_LT(Error(2, found), kTolerance);
}

TEST_P(GoldenLogitsTest, AreTheSameBesideAnotherSequence) {
  RunningModel model(*device_, path(), spec_, CheckMode());
  const std::vector<int32_t> one = Prompt(1);
  const std::vector<int32_t> other = Prompt(2);
  // The beginning of one, then the rest of it beside a piece of the other.
  auto found = model.Step({{0, {one.begin(), one.begin() + 5}, 0, 5}});
  const auto rest = model.Step({{1, {other.begin(), other.begin() + 33}, 0, 0},
                                {0, {one.begin() + 5, one.end()}, 5, std::ssize(one) - 5}});
  found.insert(found.end(), rest.begin(), rest.end());
  EXPECT_LT(Error(1, found), kTolerance);
}

TEST_P(GoldenLogitsTest, LeadToTheSameGreedyTokensWhereTheMarginIsAboveTheError) {
  if (path().find("/models/") == std::string::npos) {
    GTEST_SKIP() << "no greedy tokens are recorded for this checkpoint";
  }
  ExpectGreedyTokens({}, kTolerance);
  if (!AmplifiesRounding(path())) {
    ExpectGreedyTokens(kFast, kFastTolerance);
  }
}

TEST_P(GoldenLogitsTest, InFastArithmeticAreWithinItsError) {
  if (AmplifiesRounding(path())) {
    GTEST_SKIP() << "this model amplifies roundings";
  }
  ServingSpec serving = CheckMode();
  serving.kv_cache_type = KvCacheType::kF16;  // As the daemon has it by default.
  RunningModel model(*device_, path(), spec_, serving, kFast);
  for (int index = 0; index < 3; ++index) {
    const std::vector<int32_t> prompt = Prompt(index);
    for (const int64_t chunk : {int64_t{1}, int64_t{7}, std::ssize(prompt)}) {
      EXPECT_LT(Error(index, model.Logits(0, prompt, chunk)), kFastTolerance)
          << "prompt " << index << " in chunks of " << chunk;
    }
  }
}

// Chunks, neighbours and their number: whatever shares a step with a token.
TEST_P(GoldenLogitsTest, AreTheSameBitsWhateverIsInTheBatchIfTheyMustBe) {
  if (std::get<0>(GetParam()) != "host") {
    GTEST_SKIP() << "of the host's kernels";
  }
  const std::vector<int32_t> one = Prompt(1);
  const std::vector<int32_t> other = Prompt(2);
  for (const Arithmetic arithmetic : {Arithmetic::kFp32, Arithmetic::kBf16}) {
    RunningModel model(*device_, path(), spec_, CheckMode(), {arithmetic, true});
    const auto alone = model.Logits(0, one, std::ssize(one));
    EXPECT_EQ(model.Logits(0, one, 1), alone);
    EXPECT_EQ(model.Logits(1, one, 5), alone);
    auto found = model.Step({{0, {one.begin(), one.begin() + 5}, 0, 5}});
    const auto rest = model.Step({{1, {other.begin(), other.begin() + 33}, 0, 0},
                                  {0, {one.begin() + 5, one.end()}, 5, std::ssize(one) - 5}});
    found.insert(found.end(), rest.begin(), rest.end());
    EXPECT_EQ(found, alone);
  }
}

std::vector<GoldenModel> GoldenModels() {
  std::vector<GoldenModel> models;
  for (const char* name : {"cohere", "gemma2", "gemma3", "llama", "llama_rows_not_multiple_of_64",
                           "llama_tied_llama3rope", "mistral_sliding", "mixtral", "qwen2", "qwen3",
                           "qwen3_5", "qwen3_5_moe", "qwen3_moe", "seed_oss"}) {
    for (const Format format : {Format::kAsStored, Format::kNf4}) {
      models.push_back({TestDataPath(absl::StrCat("models/", name)),
                        TestDataPath(absl::StrCat("models_expected/", name, ".safetensors")),
                        format == Format::kNf4 ? "_nf4" : "", format});
    }
  }
  for (const char* name : {"llama_fp4", "llama_nf4", "llama_nf4_dq", "qwen2_nf4_dq"}) {
    const std::string path = TestDataPath(absl::StrCat("bnb_checkpoints/", name));
    models.push_back({path, path + "/expected.safetensors", "", Format::kNf4});
  }
  // Its experts are in 16 bits, and so are they in what was computed.
  const std::string path = TestDataPath("bnb_checkpoints/mixtral_nf4");
  models.push_back({path, path + "/expected.safetensors", "", Format::kNf4, true});
  return models;
}

std::string CaseName(const ::testing::TestParamInfo<LogitsCase>& info) {
  const GoldenModel& model = std::get<1>(info.param);
  std::string device = std::get<0>(info.param);
  std::erase(device, ':');
  const bool stored = model.path.find("/bnb_checkpoints/") != std::string::npos;
  return absl::StrCat(stored ? "stored_" : "", model.path.substr(model.path.rfind('/') + 1),
                      model.suffix, "_", device);
}

INSTANTIATE_TEST_SUITE_P(Host, GoldenLogitsTest,
                         ::testing::Combine(::testing::Values("host"),
                                            ::testing::ValuesIn(GoldenModels())),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, GoldenLogitsTest,
                         ::testing::Combine(::testing::ValuesIn(CudaDevices()),
                                            ::testing::ValuesIn(GoldenModels())),
                         CaseName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenLogitsTest);

}  // namespace
}  // namespace nibble
