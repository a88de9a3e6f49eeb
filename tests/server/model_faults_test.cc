// Every single thing that a load asks of the machine fails in turn, through the registry: the load
// ends with an error, everything is given back, and the next load works.

#include "gmock/gmock.h"
#include "tests/server/registry_fixture.h"
#include "tests/support/faulty_new.h"

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

  void ExpectTheNextLoadWorks() {
    LoadReady(Request("next", "many"));
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

}  // namespace
}  // namespace nibble
