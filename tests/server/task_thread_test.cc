#include "server/task_thread.h"

#include <atomic>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/gated_device.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;

TEST(TaskThreadTest, RunsTasksInOrderAndWhatWaitsBeforeItStops) {
  std::vector<int> order;
  TaskThread thread;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(thread.Post([&, i] { order.push_back(i); }), TaskThread::Posted::kYes);
  }
  thread.Stop();
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3));
}

TEST(TaskThreadTest, RefusesWhatIsBeyondItsBound) {
  Gate gate;
  gate.Close();
  TaskThread thread(1);
  EXPECT_EQ(thread.Post([&] { gate.Pass(); }), TaskThread::Posted::kYes);
  gate.AwaitWaiting(1);
  EXPECT_EQ(thread.Post([] {}), TaskThread::Posted::kYes);
  EXPECT_EQ(thread.Post([] {}), TaskThread::Posted::kFull);
  gate.Open();
}

TEST(TaskThreadTest, RefusesWhenStopped) {
  std::atomic<bool> ran = false;
  TaskThread thread;
  thread.Stop();
  thread.Stop();
  EXPECT_EQ(thread.Post([&] { ran = true; }), TaskThread::Posted::kStopped);
  EXPECT_FALSE(ran);
}

TEST(TaskThreadTest, ATaskMayPost) {
  std::atomic<bool> ran = false;
  TaskThread thread;
  Gate gate;
  gate.Close();
  thread.Post([&] {
    thread.Post([&] { ran = true; });
    gate.Open();
  });
  gate.Pass();
  thread.Stop();
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace nibble
