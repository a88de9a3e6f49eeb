#include "server/engine/scheduler.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr StepLimits kLimits = {
    .context_tokens = 256, .sequences = 4, .rows = 36, .outputs = 8, .pages = 16};

SequenceView Answering(int64_t tokens) {
  return {.tokens = tokens, .computed = tokens - 1, .pages = (tokens + 14) / kPageTokens};
}
SequenceView Prompt(int64_t tokens) { return {.tokens = tokens}; }

TEST(SchedulerTest, TakesAnswersFirstAndFillsTheRestWithPrompts) {
  const std::vector<SequenceView> running = {Prompt(100), Answering(20), Answering(50)};
  const Schedule schedule = MakeSchedule(running, 100, kLimits);
  EXPECT_THAT(schedule.counts, ElementsAre(34, 1, 1));
  EXPECT_THAT(schedule.preempted, IsEmpty());
}

TEST(SchedulerTest, ServesPromptsInTheOrderOfArrival) {
  const std::vector<SequenceView> running = {Prompt(20), Prompt(30), Prompt(10)};
  EXPECT_THAT(MakeSchedule(running, 100, kLimits).counts, ElementsAre(20, 16, 0));
}

TEST(SchedulerTest, LeavesPausedSequencesOut) {
  std::vector<SequenceView> running = {Answering(20), Answering(30)};
  running[0].paused = true;
  EXPECT_THAT(MakeSchedule(running, 100, kLimits).counts, ElementsAre(0, 1));
}

TEST(SchedulerTest, ScoresNoMoreRowsThanAStepHasOutputs) {
  std::vector<SequenceView> running = {Prompt(30), Answering(5)};
  running[0].scores = true;
  // One output is the answer's.
  EXPECT_THAT(MakeSchedule(running, 100, kLimits).counts, ElementsAre(7, 1));
}

TEST(SchedulerTest, PreemptsTheNewestForAnOlderOne) {
  // The first needs a new page: it has 16 tokens computed in one page.
  const std::vector<SequenceView> running = {
      {.tokens = 17, .computed = 16, .pages = 1}, Answering(20), Answering(30)};
  const Schedule schedule = MakeSchedule(running, 0, kLimits);
  EXPECT_THAT(schedule.preempted, ElementsAre(2));
  EXPECT_THAT(schedule.counts, ElementsAre(1, 1, 0));
}

TEST(SchedulerTest, NeverTakesFromAnOlderOne) {
  const std::vector<SequenceView> running = {Answering(20),
                                             {.tokens = 17, .computed = 16, .pages = 1}};
  const Schedule schedule = MakeSchedule(running, 0, kLimits);
  EXPECT_THAT(schedule.preempted, IsEmpty());
  EXPECT_THAT(schedule.counts, ElementsAre(1, 0));
}

TEST(SchedulerTest, EndsAStepWhereAStateIsKept) {
  std::vector<SequenceView> running = {Prompt(30)};
  running[0].stop = 16;
  EXPECT_THAT(MakeSchedule(running, 100, kLimits).counts, ElementsAre(16));
  running[0].computed = 16;
  EXPECT_THAT(MakeSchedule(running, 100, kLimits).counts, ElementsAre(14));
}

TEST(SchedulerTest, GoesAsFarAsThePagesReach) {
  const std::vector<SequenceView> running = {Prompt(30)};
  EXPECT_THAT(MakeSchedule(running, 1, kLimits).counts, ElementsAre(16));
}

}  // namespace
}  // namespace nibble
