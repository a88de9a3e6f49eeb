// How models go: drained, cancelled, shut down; and that their bytes are back when that is said.

#include <thread>

#include "gmock/gmock.h"
#include "tests/server/registry_fixture.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ModelUnloadTest : public RegistryFixture {
 protected:
  void AwaitCancelled(const ModelHandle& handle) {
    const absl::Time limit = absl::Now() + kNever;
    while (!handle.cancelled()) {
      ASSERT_LT(absl::Now(), limit);
      std::this_thread::yield();
    }
  }
};

TEST_F(ModelUnloadTest, AnswersWithTheBytesWhenTheyAreBack) {
  const ModelInfo model = LoadReady(Request("llama"));
  Awaited<int64_t> reserved_then;
  registry().Unload("llama", absl::ZeroDuration(), [&](const absl::StatusOr<int64_t>& bytes) {
    EXPECT_EQ(*bytes, model.plan->resident_bytes());
    reserved_then.Set(budget_.Snapshot().reserved.total());
  });
  EXPECT_EQ(reserved_then.Await(), 0);
  EXPECT_THAT(registry().Snapshot()->models, IsEmpty());
  EXPECT_EQ(observer_.states("llama").back(), ModelState::kUnloaded);
}

TEST_F(ModelUnloadTest, AnUnknownNameIsNotFound) {
  const absl::Status status = Unload("no\nsuch").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
}

TEST_F(ModelUnloadTest, WaitsForTheLastHandle) {
  LoadReady(Request("llama"));
  LoadReady(Request("other", "other"));
  auto first = std::make_unique<ModelHandle>(*registry().Acquire("llama"));
  auto second = std::make_unique<ModelHandle>(*registry().Acquire("llama"));
  const Unloaded unloaded = StartUnload("llama");
  EXPECT_EQ(StateOf("llama"), ModelState::kDraining);
  EXPECT_EQ(registry().Acquire("llama").status().code(), absl::StatusCode::kUnavailable);
  first.reset();
  // The same thread frees both models, so after this one it has seen that a handle is left.
  ASSERT_TRUE(Unload("other").ok());
  EXPECT_FALSE(unloaded->happened());
  EXPECT_FALSE(second->cancelled());
  EXPECT_EQ(second->weights().allocated_bytes(), budget_.Snapshot().allocated.total());
  second.reset();
  EXPECT_TRUE(unloaded->Await().ok());
}

TEST_F(ModelUnloadTest, TheDrainTimeoutCancelsHandlesAndStillWaits) {
  LoadReady(Request("llama"));
  auto handle = std::make_unique<ModelHandle>(*registry().Acquire("llama"));
  const Unloaded patient = StartUnload("llama", absl::Milliseconds(20));
  AwaitCancelled(*handle);
  EXPECT_FALSE(patient->happened());
  EXPECT_GT(handle->weights().allocated_bytes(), 0) << "what a handle shows stays";
  handle.reset();
  EXPECT_TRUE(patient->Await().ok());
}

TEST_F(ModelUnloadTest, ConcurrentUnloadsGetOneAnswerAndTheEarlierDeadline) {
  const ModelInfo model = LoadReady(Request("llama"));
  auto handle = std::make_unique<ModelHandle>(*registry().Acquire("llama"));
  const Unloaded patient = StartUnload("llama", absl::InfiniteDuration());
  const Unloaded hasty = StartUnload("llama", absl::Seconds(-1));
  AwaitCancelled(*handle);
  handle.reset();
  EXPECT_EQ(*patient->Await(), model.plan->resident_bytes());
  EXPECT_EQ(*hasty->Await(), model.plan->resident_bytes());
  EXPECT_EQ(Unload("llama").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelUnloadTest, TheNameIsFreeWhenEitherOfTwoUnloadsIsAnswered) {
  const ModelInfo model = LoadReady(Request("llama"));
  auto handle = std::make_unique<ModelHandle>(*registry().Acquire("llama"));
  const Unloaded first = StartUnload("llama");
  Awaited<absl::StatusOr<ModelRegistry::Ticket>> reload;
  auto listener = std::make_shared<RecordingListener>();
  registry().Unload("llama", absl::InfiniteDuration(), [&](const absl::StatusOr<int64_t>& bytes) {
    EXPECT_EQ(*bytes, model.plan->resident_bytes());
    reload.Set(registry().Load(Request("llama", "other"), listener));
  });
  EXPECT_EQ(TryStart(Request("llama")).status().code(), absl::StatusCode::kAlreadyExists);
  handle.reset();
  EXPECT_EQ(*first->Await(), model.plan->resident_bytes());
  ASSERT_TRUE(reload.Await().ok()) << reload.Await().status();
  EXPECT_TRUE(listener->AwaitDone().ok());
  EXPECT_EQ(registry().Get("llama")->source, "other");
}

// In whichever order: one unload may meet the old model, the other the new one or none.
TEST_F(ModelUnloadTest, TwoUnloadsRaceWithEachOtherAndAReload) {
  for (int round = 0; round < 100; ++round) {
    LoadReady(Request("llama"));
    std::vector<Unloaded> unloads(2);
    std::vector<std::thread> threads;
    threads.reserve(unloads.size());
    for (Unloaded& unload : unloads) {
      threads.emplace_back([&] { unload = StartUnload("llama"); });
    }
    absl::StatusOr<StartedLoad> reload = TryStart(Request("llama", "other"));
    while (!reload.ok()) {
      ASSERT_EQ(reload.status().code(), absl::StatusCode::kAlreadyExists) << reload.status();
      reload = TryStart(Request("llama", "other"));
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    int freed_count = 0;
    for (const Unloaded& unload : unloads) {
      const absl::StatusOr<int64_t> freed = unload->Await();
      EXPECT_TRUE(freed.ok() || absl::IsNotFound(freed.status())) << freed.status();
      freed_count += freed.ok() ? 1 : 0;
    }
    EXPECT_GE(freed_count, 1);
    const absl::StatusOr<ModelInfo> reloaded = reload->listener->AwaitDone();
    EXPECT_TRUE(reloaded.ok() || absl::IsCancelled(reloaded.status())) << reloaded.status();
    Unload("llama").IgnoreError();  // Of the reload, unless the second unload has met it.
    ExpectEmptyLedger();
  }
}

TEST_F(ModelUnloadTest, CancelsALoadThatRuns) {
  const StartedLoad load = StartAndBlock(Request("llama"));
  const int64_t peak_bytes = load.listener->AwaitPlan().plan->peak_bytes();
  const Unloaded first = StartUnload("llama");
  const Unloaded second = StartUnload("llama");
  EXPECT_FALSE(first->happened()) << "the bytes are not back";
  device_.gate().Open();
  EXPECT_EQ(*first->Await(), peak_bytes);
  EXPECT_EQ(*second->Await(), peak_bytes);
  ExpectEmptyLedger();
  EXPECT_EQ(load.listener->AwaitDone().status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(observer_.states("llama"), ElementsAre(ModelState::kQueued, ModelState::kLoading,
                                                     ModelState::kDraining, ModelState::kUnloaded));
}

TEST_F(ModelUnloadTest, TakesALoadThatWaitsOutOfTheQueue) {
  options_.max_loads = 1;
  options_.max_queued_loads = 1;
  const StartedLoad running = StartAndBlock(Request("running"));
  const StartedLoad queued = Start(Request("queued"));
  EXPECT_EQ(*Unload("queued"), 0);
  EXPECT_EQ(queued.listener->AwaitDone().status().code(), absl::StatusCode::kCancelled);
  const StartedLoad next = Start(Request("next"));
  device_.gate().Open();
  EXPECT_TRUE(running.listener->AwaitDone().ok());
  EXPECT_TRUE(next.listener->AwaitDone().ok());
}

TEST_F(ModelUnloadTest, TakesAFailedModelOffTheList) {
  std::filesystem::create_directory(root_.path() / "empty");
  EXPECT_FALSE(LoadFails(Request("llama", "empty")).ok());
  EXPECT_EQ(*Unload("llama"), 0);
  EXPECT_EQ(Unload("llama").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelUnloadTest, AHandleMarksTheModelAsUsed) {
  const absl::Time loaded = LoadReady(Request("llama")).last_used;
  const uint64_t sequence = registry().Snapshot()->ledger.sequence;
  { const ModelHandle handle = *registry().Acquire("llama"); }
  EXPECT_GE(registry().Get("llama")->last_used, loaded);
  EXPECT_GT(registry().Snapshot()->ledger.sequence, sequence);
}

TEST_F(ModelUnloadTest, ShutdownCancelsLoadsAndUnloadsModels) {
  options_.max_loads = 1;
  LoadReady(Request("ready", "other"));
  const StartedLoad running = StartAndBlock(Request("running"));
  const StartedLoad queued = Start(Request("queued"));
  std::thread stopper([&] { registry().Shutdown(absl::Seconds(30)); });
  observer_.AwaitState("running", ModelState::kDraining);
  EXPECT_EQ(TryStart(Request("late")).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Plan("tiny").status().code(), absl::StatusCode::kUnavailable);
  device_.gate().Open();
  stopper.join();
  ExpectEmptyLedger();
  EXPECT_THAT(registry().Snapshot()->models, IsEmpty());
  EXPECT_TRUE(running.listener->is_done() && queued.listener->is_done()) << "all is told";
  EXPECT_EQ(running.listener->AwaitDone().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(queued.listener->AwaitDone().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ModelUnloadTest, ShutdownIsIdempotentAndTheRegistryAnswersAfterwards) {
  LoadReady(Request("llama"));
  std::thread other([&] { registry().Shutdown(absl::ZeroDuration()); });
  registry().Shutdown(absl::ZeroDuration());
  other.join();
  registry().Shutdown(absl::ZeroDuration());
  EXPECT_EQ(TryStart(Request("late")).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Unload("llama").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Plan("tiny").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(registry().Acquire("llama").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelUnloadTest, ShutdownWaitsForHandlesAndCancelsThem) {
  LoadReady(Request("llama"));
  auto handle = std::make_unique<ModelHandle>(*registry().Acquire("llama"));
  std::thread stopper([&] { registry().Shutdown(absl::ZeroDuration()); });
  AwaitCancelled(*handle);
  EXPECT_GT(handle->weights().allocated_bytes(), 0);
  handle.reset();
  stopper.join();
  ExpectEmptyLedger();
}

TEST_F(ModelUnloadTest, ACallbackMayCallTheRegistry) {
  LoadReady(Request("llama"));
  Awaited<absl::StatusOr<int64_t>> second_answer;
  registry().Unload("llama", absl::ZeroDuration(), [&](const absl::StatusOr<int64_t>&) {
    EXPECT_THAT(registry().Snapshot()->models, SizeIs(0));
    registry().Unload("llama", absl::ZeroDuration(),
                      [&](absl::StatusOr<int64_t> bytes) { second_answer.Set(bytes); });
  });
  EXPECT_EQ(second_answer.Await().status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace nibble
