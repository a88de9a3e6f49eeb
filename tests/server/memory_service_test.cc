#include "server/memory_service.h"

#include <map>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "tests/server/front_fixture.h"

namespace nibble {
namespace {

// Series and values of Prometheus' text.
std::map<std::string, double> ParseMetrics(const std::string& text) {
  std::map<std::string, double> series;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const size_t space = line.rfind(' ');
    double value = 0;
    if (!line.empty() && line[0] != '#' && space != absl::string_view::npos &&
        absl::SimpleAtod(line.substr(space + 1), &value)) {
      series[std::string(line.substr(0, space))] = value;
    }
  }
  return series;
}

class MemoryServiceTest : public FrontFixture {
 protected:
  MemoryServiceTest() { Start(); }

  // The three answers of one state: asked for until none changed in between.
  struct Answers {
    v1::GetMemoryResponse memory;
    v1::ListModelsResponse models;
    std::map<std::string, double> metrics;
  };

  bool AskAll(Answers& answers) {
    answers.memory = GetMemory();
    answers.models = ListModels();
    answers.metrics = ParseMetrics(GetMetrics());
    const double sequence = answers.metrics.at(R"(nibble_ledger_sequence{device="host"})");
    return answers.memory.sequence() == answers.models.sequence() &&
           static_cast<double>(answers.memory.sequence()) == sequence;
  }

  static void ExpectSame(const Answers& answers) {
    const v1::DeviceMemory& device = answers.memory.devices(0);
    uint64_t reserved = 0;
    uint64_t allocated = 0;
    for (const v1::PurposeMemory& purpose : device.purposes()) {
      const std::string labels =
          absl::StrCat("{device=\"host\",purpose=\"", purpose.purpose(), "\"}");
      EXPECT_EQ(answers.metrics.at("nibble_vram_reserved_bytes" + labels),
                static_cast<double>(purpose.reserved_bytes()));
      EXPECT_EQ(answers.metrics.at("nibble_vram_allocated_bytes" + labels),
                static_cast<double>(purpose.allocated_bytes()));
      reserved += purpose.reserved_bytes();
      allocated += purpose.allocated_bytes();
    }
    EXPECT_EQ(device.purposes_size(), kPurposeCount);
    EXPECT_EQ(device.reserved_bytes(), reserved);
    EXPECT_EQ(device.allocated_bytes(), allocated);
    EXPECT_LE(allocated, reserved);
    EXPECT_EQ(device.available_bytes(), device.budget_bytes() - reserved);
    ExpectSameModels(answers);
  }

  static void ExpectSameModels(const Answers& answers) {
    const v1::DeviceMemory& device = answers.memory.devices(0);
    uint64_t reserved = 0;
    for (const v1::ModelMemory& model : device.models()) {
      const std::string labels =
          absl::StrCat("{model=\"", model.model(), "\",device=\"host\",purpose=\"weights\"}");
      EXPECT_EQ(answers.metrics.at("nibble_model_vram_bytes" + labels),
                static_cast<double>(model.weights_bytes()));
      reserved += model.weights_bytes() + model.kv_cache_bytes() + model.workspace_bytes() +
                  model.staging_bytes();
    }
    EXPECT_EQ(device.reserved_bytes(), reserved);
    std::map<v1::ModelState, double> states;
    int holding = 0;
    for (const v1::Model& model : answers.models.models()) {
      ++states[model.state()];
      holding += model.state() == v1::LOADING || model.state() == v1::READY ? 1 : 0;
    }
    EXPECT_GE(device.models_size(), holding) << "who loads or is loaded holds memory";
    for (const v1::ModelState state : {v1::QUEUED, v1::LOADING, v1::READY, v1::DRAINING}) {
      EXPECT_EQ(answers.metrics.at(
                    absl::StrCat("nibble_models{state=\"", v1::ModelState_Name(state), "\"}")),
                states[state]);
    }
  }
};

TEST_F(MemoryServiceTest, SaysWhereEveryByteIs) {
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  const v1::GetMemoryResponse response = GetMemory();
  ASSERT_EQ(response.devices_size(), 1);
  const v1::DeviceMemory& device = response.devices(0);
  EXPECT_EQ(device.device(), "host");
  EXPECT_EQ(device.budget_bytes(), static_cast<uint64_t>(kDeviceBytes));
  EXPECT_EQ(device.total_bytes(), static_cast<uint64_t>(kDeviceBytes));
  EXPECT_EQ(device.free_bytes(), device.total_bytes() - device.allocated_bytes());
  ASSERT_EQ(device.models_size(), 1);
  EXPECT_EQ(device.models(0).model(), "tiny");
  const v1::ModelMemory& model = device.models(0);
  EXPECT_EQ(model.weights_bytes() + model.kv_cache_bytes() + model.workspace_bytes(),
            device.reserved_bytes());
  EXPECT_GT(model.kv_cache_bytes(), 0u);
  EXPECT_GT(model.workspace_bytes(), 0u);
  EXPECT_EQ(device.models(0).allocated_bytes(), device.allocated_bytes());
  EXPECT_EQ(device.models(0).staging_bytes(), 0u) << "given back";
  EXPECT_GT(device.peak_allocated_bytes(), device.allocated_bytes()) << "staging was there";
  EXPECT_GT(response.host().rss_bytes(), 0u);
}

TEST_F(MemoryServiceTest, AnswersOfOneSequenceAreOneState) {
  std::thread loads([this] {
    for (int round = 0; round < 20; ++round) {
      const std::string model = absl::StrCat("m", round % 3);
      EXPECT_TRUE(Load(LoadRequestFor(model, round % 2 == 0 ? "tiny" : "other")).ok());
      v1::UnloadModelResponse response;
      EXPECT_TRUE(Unload(model, &response).ok());
    }
  });
  int compared = 0;
  Answers answers;
  for (int round = 0; round < 200; ++round) {
    if (AskAll(answers)) {
      ExpectSame(answers);
      ++compared;
    }
  }
  loads.join();
  ASSERT_TRUE(AskAll(answers)) << "nothing changes any more";
  ExpectSame(answers);
  EXPECT_GT(compared, 0);
}

TEST_F(MemoryServiceTest, AnswersInTheMiddleOfALoadAgree) {
  const std::unique_ptr<LoadCall> call = StartAndBlock(LoadRequestFor("tiny"));
  Answers answers;
  ASSERT_TRUE(AskAll(answers));
  ExpectSame(answers);
  EXPECT_EQ(answers.memory.devices(0).allocated_bytes(),
            answers.memory.devices(0).reserved_bytes());
  EXPECT_GT(answers.memory.devices(0).models(0).staging_bytes(), 0u);
}

TEST_F(MemoryServiceTest, AWatchSendsTheStateAtOnceAndEachChange) {
  grpc::ClientContext context;
  v1::WatchMemoryRequest request;
  request.set_max_rate(100);
  const auto watch = memory_->WatchMemory(&context, request);
  v1::GetMemoryResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.devices(0).reserved_bytes(), 0u);
  uint64_t sequence = response.sequence();
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  while (response.devices(0).reserved_bytes() == 0) {
    ASSERT_TRUE(watch->Read(&response));
    EXPECT_GT(response.sequence(), sequence);
    sequence = response.sequence();
  }
}

TEST_F(MemoryServiceTest, AWatchKeepsToItsRate) {
  grpc::ClientContext context;
  v1::WatchMemoryRequest request;
  request.set_max_rate(20);  // 50 ms apart.
  const auto watch = memory_->WatchMemory(&context, request);
  v1::GetMemoryResponse response;
  ASSERT_TRUE(watch->Read(&response));
  const absl::Time start = absl::Now();
  const absl::Time end = start + absl::Milliseconds(300);
  std::thread changes([this, end] {
    while (absl::Now() < end) {
      budget_.Touch();
      absl::SleepFor(absl::Milliseconds(1));
    }
    Stop();  // Ends the watch.
  });
  int count = 0;
  while (watch->Read(&response)) {
    ++count;
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  changes.join();
  EXPECT_GE(count, 1);
  EXPECT_LE(count, seconds * 20 + 1);
}

TEST_F(MemoryServiceTest, RefusesAWatchOfAnAbsurdRate) {
  grpc::ClientContext context;
  v1::WatchMemoryRequest request;
  request.set_max_rate(1e9);
  const auto watch = memory_->WatchMemory(&context, request);
  v1::GetMemoryResponse response;
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(BadFieldOf(watch->Finish()), "max_rate");
}

TEST_F(MemoryServiceTest, ChangesTheBudgetButNeverBelowWhatIsHeld) {
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  const uint64_t held_bytes = GetMemory().devices(0).reserved_bytes();
  v1::SetBudgetRequest request;
  v1::SetBudgetResponse response;
  request.set_budget_bytes(held_bytes);
  {
    grpc::ClientContext context;
    ASSERT_TRUE(memory_->SetBudget(&context, request, &response).ok());
  }
  EXPECT_EQ(response.budget_bytes(), held_bytes);
  EXPECT_EQ(GetMemory().devices(0).available_bytes(), 0u);
  request.set_budget_bytes(held_bytes - 1);
  {
    grpc::ClientContext context;
    EXPECT_EQ(memory_->SetBudget(&context, request, &response).error_code(),
              grpc::StatusCode::FAILED_PRECONDITION);
  }
  request.set_budget_bytes(0);
  grpc::ClientContext context;
  EXPECT_EQ(BadFieldOf(memory_->SetBudget(&context, request, &response)), "budget_bytes");
  EXPECT_EQ(GetMemory().devices(0).budget_bytes(), held_bytes);
}

}  // namespace
}  // namespace nibble
