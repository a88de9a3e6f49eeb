#include "server/model_registry.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "tests/server/registry_fixture.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;

class ModelRegistryTest : public RegistryFixture {};

TEST_F(ModelRegistryTest, LoadsAModelAndSaysWhatItTook) {
  const ModelInfo model = LoadReady(Request("llama"));
  EXPECT_EQ(model.state, ModelState::kReady);
  EXPECT_EQ(model.source, "tiny");
  EXPECT_EQ(model.peak_bytes, model.plan->peak_bytes());
  EXPECT_GT(model.load_duration, absl::ZeroDuration());
  EXPECT_EQ(observer_.read_bytes(), model.plan->source_bytes);
  EXPECT_THAT(observer_.states("llama"),
              ElementsAre(ModelState::kQueued, ModelState::kLoading, ModelState::kReady));
  EXPECT_THAT(observer_.finished(), ElementsAre(Pair("llama", absl::StatusCode::kOk)));
}

TEST_F(ModelRegistryTest, TellsThePlanThenProgressThenTheResult) {
  const StartedLoad load = Start(Request("llama"));
  ASSERT_TRUE(load.listener->AwaitDone().ok());  // RecordingListener checks the order.
  const PlanAnswer plan = load.listener->AwaitPlan();
  EXPECT_TRUE(plan.fits());
  EXPECT_TRUE(plan.remedies.empty());
  EXPECT_EQ(plan.available_bytes, kDeviceBytes);
  EXPECT_EQ(load.listener->AwaitProgress().read_bytes, plan.plan->source_bytes);
}

TEST_F(ModelRegistryTest, IdenticalRequestsJoinOneLoadAndBothSeeItsProgress) {
  const StartedLoad first = StartAndBlock(Request("llama"));
  const StartedLoad second = Start(Request("llama"));
  // The one that comes late hears at once how far it is.
  EXPECT_EQ(second.listener->AwaitPlan().plan, first.listener->AwaitPlan().plan);
  EXPECT_GT(second.listener->AwaitProgress().source_bytes, 0);
  EXPECT_FALSE(second.listener->is_done());
  device_.gate().Open();
  for (const StartedLoad& load : {first, second}) {
    ASSERT_TRUE(load.listener->AwaitDone().ok());
    EXPECT_EQ(load.listener->AwaitProgress().read_bytes,
              load.listener->AwaitPlan().plan->source_bytes);
  }
  EXPECT_THAT(observer_.finished(), SizeIs(1));
}

TEST_F(ModelRegistryTest, AReadyModelAnswersTheSameRequestAtOnce) {
  const ModelInfo model = LoadReady(Request("llama"));
  const StartedLoad again = Start(Request("llama"));
  EXPECT_EQ(again.listener->AwaitDone()->plan, model.plan);
  EXPECT_TRUE(again.listener->has_plan());
  EXPECT_EQ(observer_.read_bytes(), model.plan->source_bytes) << "read once";
}

TEST_F(ModelRegistryTest, TheSameDirectoryInOtherWordsIsTheSameSpec) {
  LoadReady(Request("llama"));
  EXPECT_TRUE(TryStart(Request("llama", (root_.path() / "tiny").string())).ok());
  EXPECT_TRUE(TryStart(Request("llama", "other/../tiny")).ok());
  std::filesystem::create_directory_symlink("tiny", root_.path() / "link");
  EXPECT_TRUE(TryStart(Request("llama", "link")).ok());
}

TEST_F(ModelRegistryTest, AnotherSpecUnderTheSameNameAlreadyExists) {
  LoadReady(Request("llama"));
  LoadRequest other_format = Request("llama");
  other_format.quantization.format = Format::kFp4;
  LoadRequest other_serving = Request("llama");
  other_serving.serving.weights_only = true;
  for (const LoadRequest& request : {Request("llama", "other"), other_format, other_serving}) {
    const absl::Status status = TryStart(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
    EXPECT_EQ(DetailsOf(status).resource, "llama");
  }
}

TEST_F(ModelRegistryTest, OtherCallersOptionsAreNoOtherSpec) {
  LoadReady(Request("llama"));
  LoadRequest again = Request("llama");
  again.pinned = true;
  again.request_id = "retry";
  LoadReady(again);
  EXPECT_TRUE(registry().Get("llama")->pinned);
}

TEST_F(ModelRegistryTest, AReadyModelOutlivesItsFiles) {
  LoadReady(Request("llama"));
  std::filesystem::remove_all(root_.path() / "tiny");
  LoadReady(Request("llama"));
  EXPECT_EQ(TryStart(Request("another")).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRegistryTest, RefusesBadNames) {
  for (const std::string& name : {std::string(), std::string(129, 'a'), std::string("-a"),
                                  std::string("a b"), std::string("a\nb"), std::string("a\0b", 3),
                                  std::string("\xc3\xa4"), std::string("runtime")}) {
    const absl::Status status = TryStart(Request(name)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(DetailsOf(status).field, "model");
    EXPECT_EQ(status.message().find_first_of(absl::string_view("\n\0", 2)),
              absl::string_view::npos);
  }
  EXPECT_TRUE(TryStart(Request(std::string(128, 'a'))).ok());
  EXPECT_TRUE(TryStart(Request("Org/a-1.5:4bit_x")).ok());
}

TEST_F(ModelRegistryTest, RefusesBadRequestIdsAndSources) {
  LoadRequest request = Request("llama");
  request.request_id = "a\x1b[31m";
  EXPECT_EQ(DetailsOf(TryStart(request).status()).field, "request_id");
  request.request_id = std::string(129, 'x');
  EXPECT_EQ(DetailsOf(TryStart(request).status()).field, "request_id");
  EXPECT_EQ(DetailsOf(TryStart(Request("llama", "")).status()).field, "source");
  EXPECT_EQ(DetailsOf(TryStart(Request("llama", std::string(5000, 'x'))).status()).field, "source");
  EXPECT_TRUE(registry().Snapshot()->models.empty());
}

TEST_F(ModelRegistryTest, RefusesABadSpecBeforeAnythingElse) {
  LoadRequest request = Request("llama", "nowhere");
  request.quantization.block_size = 48;
  EXPECT_EQ(DetailsOf(TryStart(request).status()).field, "quantization.block_size");
}

TEST_F(ModelRegistryTest, RetryOnLoadErrorFinallySucceeds) {
  const std::filesystem::path config = root_.path() / "tiny" / "config.json";
  std::filesystem::rename(config, root_.path() / "aside");
  EXPECT_EQ(LoadFails(Request("llama")).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(StateOf("llama"), ModelState::kFailed);
  EXPECT_EQ(registry().Get("llama")->failure.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry().Acquire("llama").status().code(), absl::StatusCode::kFailedPrecondition);
  std::filesystem::rename(root_.path() / "aside", config);
  LoadReady(Request("llama", "other"));  // A failed name is free for any spec.
  EXPECT_THAT(registry().Snapshot()->models, SizeIs(1));
}

TEST_F(ModelRegistryTest, ListsTheNewestFailuresAlone) {
  std::filesystem::create_directory(root_.path() / "empty");
  for (int i = 0; i < kFailedModelsMax + 2; ++i) {
    EXPECT_EQ(LoadFails(Request("m" + std::to_string(i), "empty")).code(),
              absl::StatusCode::kNotFound);
  }
  EXPECT_THAT(registry().Snapshot()->models, SizeIs(kFailedModelsMax));
  EXPECT_FALSE(registry().Get("m1").ok());
  EXPECT_TRUE(registry().Get("m2").ok());
}

TEST_F(ModelRegistryTest, LoadsWaitInOrderAndOnlySoMany) {
  options_.max_loads = 1;
  options_.max_queued_loads = 2;
  StartAndBlock(Request("running"));
  const StartedLoad second = Start(Request("second"));
  const StartedLoad third = Start(Request("third", "other"));
  EXPECT_EQ(StateOf("second"), ModelState::kQueued);
  const absl::Status full = TryStart(Request("fourth")).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(full).reason, "LOAD_QUEUE_FULL");
  EXPECT_TRUE(TryStart(Request("second")).ok()) << "joining takes no place";
  device_.gate().Open();
  ASSERT_TRUE(third.listener->AwaitDone().ok());
  EXPECT_TRUE(second.listener->is_done());
  EXPECT_THAT(observer_.refused(), ElementsAre("LOAD_QUEUE_FULL"));
}

TEST_F(ModelRegistryTest, CancelsWhenTheLastCallerLeaves) {
  const StartedLoad first = StartAndBlock(Request("llama"));
  const StartedLoad second = Start(Request("llama"));
  registry().Leave(first.ticket);
  EXPECT_EQ(StateOf("llama"), ModelState::kLoading);
  registry().Leave(second.ticket);
  EXPECT_EQ(StateOf("llama"), ModelState::kDraining);
  EXPECT_EQ(TryStart(Request("llama")).status().code(), absl::StatusCode::kAlreadyExists);
  device_.gate().Open();
  observer_.AwaitState("llama", ModelState::kUnloaded);
  ExpectEmptyLedger();
  EXPECT_EQ(registry().Get("llama").status().code(), absl::StatusCode::kNotFound);
  LoadReady(Request("llama"));  // LoadAfterCancelledLoad.
  EXPECT_FALSE(first.listener->is_done() || second.listener->is_done());
  EXPECT_THAT(observer_.finished(), ElementsAre(Pair("llama", absl::StatusCode::kCancelled),
                                                Pair("llama", absl::StatusCode::kOk)));
}

TEST_F(ModelRegistryTest, ACancelledLoadThatWaitsIsGoneAtOnce) {
  options_.max_loads = 1;
  StartAndBlock(Request("running"));
  const StartedLoad queued = Start(Request("queued"));
  registry().Leave(queued.ticket);
  EXPECT_EQ(registry().Get("queued").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRegistryTest, ADetachedLoadGoesOnWithoutCallers) {
  LoadRequest detached = Request("llama");
  detached.detach = true;
  const StartedLoad first = StartAndBlock(Request("llama"));
  const StartedLoad second = Start(detached);
  registry().Leave(second.ticket);
  registry().Leave(first.ticket);
  device_.gate().Open();
  observer_.AwaitState("llama", ModelState::kReady);
  EXPECT_EQ(StateOf("llama"), ModelState::kReady);
  EXPECT_FALSE(first.listener->is_done());
}

TEST_F(ModelRegistryTest, LeavingALoadThatIsDoneDoesNothing) {
  const StartedLoad load = Start(Request("llama"));
  ASSERT_TRUE(load.listener->AwaitDone().ok());
  registry().Leave(load.ticket);
  registry().Leave(load.ticket);
  registry().Leave(4711);
  EXPECT_EQ(StateOf("llama"), ModelState::kReady);
}

TEST_F(ModelRegistryTest, ALoadNeedsNoListener) {
  LoadRequest request = Request("llama");
  request.detach = true;
  ASSERT_TRUE(registry().Load(request, nullptr).ok());
  observer_.AwaitState("llama", ModelState::kReady);
}

TEST_F(ModelRegistryTest, PlansAsALoadWould) {
  const absl::StatusOr<PlanAnswer> plan = Plan("tiny");
  ASSERT_TRUE(plan.ok()) << plan.status();
  const ModelInfo model = LoadReady(Request("llama"));
  EXPECT_EQ(plan->plan->peak_bytes(), model.peak_bytes);
  const absl::StatusOr<PlanAnswer> beside = Plan("tiny");
  EXPECT_EQ(beside->available_bytes, kDeviceBytes - model.plan->resident_bytes());
}

TEST_F(ModelRegistryTest, PlanErrorsReachTheCaller) {
  EXPECT_EQ(Plan("nowhere").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DetailsOf(Plan("").status()).field, "source");
}

TEST_F(ModelRegistryTest, ProgressIsThatOfTheRunningLoad) {
  EXPECT_EQ(registry().Progress("llama").source_bytes, 0);
  const StartedLoad load = StartAndBlock(Request("llama"));
  EXPECT_EQ(registry().Progress("llama").source_bytes,
            load.listener->AwaitPlan().plan->source_bytes);
  device_.gate().Open();
  ASSERT_TRUE(load.listener->AwaitDone().ok());
  EXPECT_EQ(registry().Progress("llama").source_bytes, 0);
}

TEST_F(ModelRegistryTest, ABrokenDeviceIsTold) {
  const StartedLoad load = StartAndBlock(Request("llama"));
  device_.Break(absl::InternalError("illegal address"));
  StartUnload("llama");
  device_.gate().Open();
  EXPECT_THAT(std::string(observer_.AwaitBroken().message()), HasSubstr("illegal address"));
}

TEST_F(ModelRegistryTest, ADeviceThatBreaksOverAnUnloadIsTold) {
  LoadReady(Request("llama"));
  device_.Break(absl::InternalError("illegal address"));
  EXPECT_TRUE(Unload("llama").ok());
  EXPECT_THAT(std::string(observer_.AwaitBroken().message()), HasSubstr("illegal address"));
}

TEST_F(ModelRegistryTest, ABrokenDeviceIsToldOnce) {  // RecordingObserver complains of a second.
  registry().CheckDevice();
  device_.Break(absl::InternalError("illegal address"));
  registry().CheckDevice();
  registry().CheckDevice();
  EXPECT_FALSE(LoadFails(Request("llama")).ok());
  EXPECT_THAT(std::string(observer_.AwaitBroken().message()), HasSubstr("illegal address"));
}

}  // namespace
}  // namespace nibble
