// Every single thing that a load asks of the machine fails in turn, through the registry: the load
// ends with an error, everything is given back, and the next load works.

#include <filesystem>

#include "gmock/gmock.h"
#include "tests/server/registry_fixture.h"
#include "tests/support/faulty_device.h"
#include "tests/support/faulty_directory.h"
#include "tests/support/faulty_new.h"
#include "tests/support/lazy_device.h"

namespace nibble {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

class ModelFaultsTest : public RegistryFixture {
 protected:
  ModelFaultsTest() {
    // So many tensors that headers, plan and tiles are large allocations.
    TinyLlamaShape shape;
    shape.hidden_size = 8;
    shape.intermediate_size = 8;
    shape.layer_count = 300;
    shape.shard_count = 2;
    TinyLlama(shape).Write(root_.path() / "many");
  }

  void ExpectTheNextLoadWorks(const std::string& source = "many") {
    LoadReady(Request("next", source));
    EXPECT_TRUE(Unload("next").ok());
    ExpectEmptyLedger();
  }
};

TEST_F(ModelFaultsTest, EveryLargeHostAllocationOfALoadMayFail) {
  int64_t number = 1;
  for (;; ++number) {
    FailLargeAllocation(number);
    const absl::StatusOr<ModelInfo> model = Start(Request("llama", "many")).listener->AwaitDone();
    const bool failed = LargeAllocationHasFailed();
    FailLargeAllocation(0);
    if (!failed) {
      EXPECT_TRUE(model.ok()) << model.status();
      break;
    }
    EXPECT_TRUE(absl::IsResourceExhausted(model.status())) << number << ": " << model.status();
    EXPECT_THAT(std::string(model.status().message()),
                AnyOf(HasSubstr("llama: the host has no memory"),
                      HasSubstr("safetensors: no memory for a header of")))
        << number;
    EXPECT_EQ(StateOf("llama"), ModelState::kFailed);
    ExpectEmptyLedger();
    ExpectTheNextLoadWorks();
  }
  // Two headers with their entries, the index, the plan, the tiles: most of them grow in steps.
  EXPECT_GT(number, 10);
}

TEST_F(ModelFaultsTest, EveryLargeHostAllocationOfAPlanMayFail) {
  int64_t number = 1;
  for (;; ++number) {
    FailLargeAllocation(number);
    const absl::StatusOr<PlanAnswer> plan = Plan("many");
    const bool failed = LargeAllocationHasFailed();
    FailLargeAllocation(0);
    if (!failed) {
      EXPECT_TRUE(plan.ok()) << plan.status();
      break;
    }
    EXPECT_TRUE(absl::IsResourceExhausted(plan.status())) << number << ": " << plan.status();
    EXPECT_THAT(std::string(plan.status().message()),
                AnyOf(HasSubstr("\"many\": the host has no memory"),
                      HasSubstr("safetensors: no memory for a header of")));
    EXPECT_TRUE(Plan("many").ok());
  }
  EXPECT_GT(number, 10);
}

// The remedies of a refusal are plans too.
TEST_F(ModelFaultsTest, EveryLargeHostAllocationOfARefusalMayFail) {
  ASSERT_TRUE(budget_.SetLimit(Plan("many")->plan->peak_bytes() - 1).ok());
  for (int64_t number = 1;; ++number) {
    FailLargeAllocation(number);
    const absl::Status status = LoadFails(Request("llama", "many"));
    const bool failed = LargeAllocationHasFailed();
    FailLargeAllocation(0);
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << number << ": " << status;
    ExpectEmptyLedger();
    if (!failed) {
      EXPECT_EQ(DetailsOf(status).reason, "BUDGET_EXCEEDED");
      break;
    }
    EXPECT_EQ(DetailsOf(status).reason, "");
  }
}

int64_t OpenFileCount() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

// What a load leaves behind when one call of `device` fails, for each of them; on a device that
// works at once, and on one that works when it is waited for, as a GPU does.
class ModelDeviceFaultsTest : public RegistryFixture, public testing::WithParamInterface<bool> {
 protected:
  Device& wrapped() { return GetParam() ? static_cast<Device&>(lazy_) : *host_; }

  static absl::StatusOr<ModelInfo> Load(ModelRegistry& registry) {
    auto listener = std::make_shared<RecordingListener>();
    EXPECT_TRUE(registry.Load(Request("llama"), listener).ok());
    return listener->AwaitDone();
  }

  static void ExpectUnloads(ModelRegistry& registry) {
    Awaited<absl::StatusOr<int64_t>> unloaded;
    registry.Unload("llama", absl::ZeroDuration(),
                    [&](absl::StatusOr<int64_t> bytes) { unloaded.Set(bytes); });
    EXPECT_TRUE(unloaded.Await().ok());
  }

  LazyDevice lazy_{*host_};
};

TEST_P(ModelDeviceFaultsTest, EveryCallMayFail) {
  FaultyDevice faulty(wrapped());
  ModelRegistry registry(faulty, budget_, options_, observer_);
  const int64_t files = OpenFileCount();
  int64_t number = 1;
  for (;; ++number) {
    faulty.FailCall(number);
    const absl::StatusOr<ModelInfo> model = Load(registry);
    if (!faulty.has_failed()) {
      EXPECT_TRUE(model.ok()) << model.status();
      ExpectUnloads(registry);
      break;
    }
    ASSERT_FALSE(model.ok()) << number << ": " << faulty.failed_call();
    EXPECT_EQ(registry.Get("llama")->state, ModelState::kFailed);
    ExpectEmptyLedger();
    EXPECT_EQ(faulty.live_objects(), 0) << number << ": " << faulty.failed_call();
    EXPECT_EQ(faulty.host_bytes(), 0) << number << ": " << faulty.failed_call();
    EXPECT_EQ(OpenFileCount(), files) << number << ": " << faulty.failed_call();
    faulty.FailCall(0);
    EXPECT_TRUE(Load(registry).ok()) << "after " << number;
    ExpectUnloads(registry);
    ExpectEmptyLedger();
  }
  // Memory, a queue and an event, and a tile of each of 21 tensors.
  EXPECT_GT(number, 4 + 21);
}

INSTANTIATE_TEST_SUITE_P(, ModelDeviceFaultsTest, testing::Bool(), [](const auto& info) {
  return info.param ? "OfALazyDevice" : "OfTheHostDevice";
});

TEST_F(ModelFaultsTest, EveryCallOfAFileMayFail) {
  int64_t failing_call = 0;
  std::shared_ptr<FaultyDirectory> last;  // Touched under the lock of nobody: one load at a time.
  options_.resolve_source =
      [&](const std::vector<std::string>& roots,
          absl::string_view source) -> absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> {
    auto directory = ResolveSource(roots, source);
    if (!directory.ok()) {
      return directory.status();
    }
    return last = std::make_shared<FaultyDirectory>(*std::move(directory), failing_call);
  };
  registry();
  const int64_t files = OpenFileCount();
  for (;; ++failing_call) {
    const absl::StatusOr<ModelInfo> model = Start(Request("llama")).listener->AwaitDone();
    if (last->call_count() <= failing_call) {
      EXPECT_TRUE(model.ok()) << model.status();
      break;
    }
    EXPECT_TRUE(absl::IsInternal(model.status())) << failing_call << ": " << model.status();
    EXPECT_THAT(std::string(model.status().message()), HasSubstr("the disk failed"));
    EXPECT_EQ(StateOf("llama"), ModelState::kFailed);
    ExpectEmptyLedger();
    last.reset();
    EXPECT_EQ(OpenFileCount(), files) << failing_call;
    const int64_t call = std::exchange(failing_call, -1);
    ExpectTheNextLoadWorks("tiny");
    failing_call = call;
  }
  // The directory, three files with two looks each, and a read of each of 21 tensors.
  EXPECT_GT(failing_call, 1 + 3 * 3 + 21);
}

}  // namespace
}  // namespace nibble
