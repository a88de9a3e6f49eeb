#include "server/system_memory.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/server/registry_fixture.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

// A made-up system beneath a scratch directory.
class SystemMemoryTest : public ::testing::Test {
 protected:
  void Put(const char* path, const char* text) {
    const std::filesystem::path file = root_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    WriteFile(file, text);
  }

  absl::StatusOr<int64_t> Available() const { return AvailableHostBytes(root_.path().string()); }

  ScratchDirectory root_;
};

constexpr char kMeminfo[] = "MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable: 3000 kB\n";

TEST_F(SystemMemoryTest, ReadsWhatIsAvailable) {
  Put("proc/meminfo", kMeminfo);
  EXPECT_EQ(*Available(), 3000 * 1024);
}

TEST_F(SystemMemoryTest, HeedsTheGroupsLimit) {
  Put("proc/meminfo", kMeminfo);
  Put("proc/self/cgroup", "0::/kubepods/pod1\n");
  Put("sys/fs/cgroup/kubepods/pod1/memory.max", "1048576\n");
  EXPECT_EQ(*Available(), 1048576);
}

TEST_F(SystemMemoryTest, HeedsTheLimitOfAGroupAround) {
  Put("proc/meminfo", kMeminfo);
  Put("proc/self/cgroup", "0::/kubepods/pod1\n");
  Put("sys/fs/cgroup/kubepods/pod1/memory.max", "max\n");
  Put("sys/fs/cgroup/kubepods/memory.max", "524288\n");
  EXPECT_EQ(*Available(), 524288);
}

TEST_F(SystemMemoryTest, ReadsTheLimitWithinAContainersOwnView) {
  Put("proc/meminfo", kMeminfo);
  Put("proc/self/cgroup", "0::/\n");
  Put("sys/fs/cgroup/memory.max", "2097152\n");
  EXPECT_EQ(*Available(), 2097152);
}

TEST_F(SystemMemoryTest, KnowsTheFirstVersionOfControlGroups) {
  Put("proc/meminfo", kMeminfo);
  Put("proc/self/cgroup", "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n");
  Put("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "1000000\n");
  EXPECT_EQ(*Available(), 1000000);
}

TEST_F(SystemMemoryTest, SaysWhatIsMissing) {
  EXPECT_EQ(Available().status().code(), absl::StatusCode::kInternal);
}

TEST_F(SystemMemoryTest, SamplesTheDeviceAndThisProcess) {
  const std::unique_ptr<Device> device = OpenHostDevice(1_MiB);
  VramBudget budget(1_MiB);
  RecordingObserver observer;
  const ModelRegistry registry(*device, budget, {}, observer);
  const MemorySample sample = SampleMemory(*device, registry);
  EXPECT_EQ(sample.device, "host");
  EXPECT_EQ(sample.memory.total_bytes, 1_MiB);
  EXPECT_GT(sample.rss_bytes, 100'000);
  EXPECT_EQ(sample.pinned_bytes, 0);
}

}  // namespace
}  // namespace nibble
