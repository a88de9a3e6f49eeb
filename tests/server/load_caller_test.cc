#include "server/load_caller.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class WordListener final : public LoadListener {
 public:
  void OnPlan(const PlanAnswer&) override { words.push_back("plan"); }
  void OnProgress(const LoadProgress& progress) override {
    words.push_back(std::to_string(progress.read_bytes));
  }
  void OnDone(const absl::StatusOr<ModelInfo>&) override { words.push_back("done"); }

  std::vector<std::string> words;
};

struct Fixture {
  std::shared_ptr<WordListener> listener = std::make_shared<WordListener>();
  LoadCaller caller{listener};
};

TEST(LoadCallerTest, PassesEventsOnInOrder) {
  Fixture f;
  f.caller.HearPlan({});
  f.caller.HearProgress({10, 20, 0, 2});
  f.caller.HearProgress({20, 20, 2, 2});
  f.caller.HearDone(absl::CancelledError());
  EXPECT_THAT(f.listener->words, ElementsAre("plan", "10", "20", "done"));
}

TEST(LoadCallerTest, DropsProgressThatOvertookThePlan) {
  Fixture f;
  f.caller.HearProgress({10, 20, 0, 2});
  f.caller.HearPlan({});
  f.caller.HearProgress({10, 20, 0, 2});
  EXPECT_THAT(f.listener->words, ElementsAre("plan", "10"));
}

TEST(LoadCallerTest, SaysNothingTwice) {
  Fixture f;
  f.caller.HearPlan({});
  f.caller.HearProgress({10, 20, 0, 2});
  f.caller.HearProgress({10, 20, 0, 2});
  f.caller.HearProgress({10, 20, 1, 2});
  EXPECT_THAT(f.listener->words, ElementsAre("plan", "10", "10"));
}

TEST(LoadCallerTest, BeginsAnewWithAnotherSource) {
  Fixture f;
  f.caller.HearPlan({});
  f.caller.HearProgress({10, 20, 1, 2});
  f.caller.HearProgress({1, 90, 0, 2});
  f.caller.HearProgress({30, 90, 1, 2});
  f.caller.HearDone(absl::CancelledError());
  EXPECT_THAT(f.listener->words, ElementsAre("plan", "10", "1", "30", "done"));
}

TEST(LoadCallerTest, IsSilentAfterDoneAndAfterLeaving) {
  Fixture done;
  done.caller.HearPlan({});
  done.caller.HearDone(absl::CancelledError());
  done.caller.HearProgress({10, 20, 0, 2});
  EXPECT_THAT(done.listener->words, ElementsAre("plan", "done"));
  Fixture left;
  left.caller.Leave();
  left.caller.HearPlan({});
  left.caller.HearDone(absl::CancelledError());
  EXPECT_THAT(left.listener->words, IsEmpty());
}

TEST(LoadMeterTest, KeepsTheLargestOfWhatArrivesOutOfOrder) {
  LoadMeter meter;
  meter.Update({20, 30, 1, 3});
  meter.Update({10, 30, 2, 3});
  const LoadProgress progress = meter.Read();
  EXPECT_EQ(progress.read_bytes, 20);
  EXPECT_EQ(progress.tensors_done, 2);
  EXPECT_EQ(progress.source_bytes, 30);
  EXPECT_EQ(progress.tensors_total, 3);
}

TEST(LoadMeterTest, CountsAllThatWasReadOfEverySource) {
  LoadMeter meter;
  meter.Restart({0, 20, 0, 3});
  meter.Update({15, 20, 1, 3});
  meter.Update({5, 20, 1, 3});
  meter.Restart({0, 90, 0, 3});
  EXPECT_EQ(meter.Read().read_bytes, 0);
  EXPECT_EQ(meter.Read().source_bytes, 90);
  EXPECT_EQ(meter.Read().tensors_done, 0);
  EXPECT_EQ(meter.total_read_bytes(), 15);
  meter.Update({90, 90, 3, 3});
  EXPECT_EQ(meter.total_read_bytes(), 105);
}

TEST(LoadMeterTest, TellsTheFirstUpdateAndNotTheNextAtOnce) {
  LoadMeter meter;
  EXPECT_TRUE(meter.Update({1, 9, 0, 1}));
  int told_count = 0;
  for (int i = 0; i < 100; ++i) {
    told_count += meter.Update({2, 9, 0, 1}) ? 1 : 0;
  }
  EXPECT_LT(told_count, 100);
}

}  // namespace
}  // namespace nibble
