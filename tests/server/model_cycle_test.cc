// What goes up comes down, a thousand times: ledger, device, memory, threads and files of the
// process are where they were.

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "gmock/gmock.h"
#include "tests/server/registry_fixture.h"

namespace nibble {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// A sanitizer keeps freed memory to itself and takes its time.
constexpr bool kMeasuresMemory = false;
constexpr int kCycleCount = 100;
#else
constexpr bool kMeasuresMemory = true;
constexpr int kCycleCount = 1000;
#endif
constexpr int kWarmUpCycleCount = 100;
constexpr size_t kSampleCount = 50;

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  statm >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

int64_t CountEntries(const char* directory) {
  return std::distance(std::filesystem::directory_iterator(directory), {});
}

int64_t Median(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Keeps nothing: what a test records would count as growth.
class SilentObserver final : public RegistryObserver {
 public:
  void OnStateChanged(const ModelInfo&) override {}
  void OnRead(int64_t) override {}
  void OnLoadFinished(const ModelInfo&, const absl::Status&) override {}
  void OnRefused(absl::string_view) override {}
  void OnDeviceBroken(const absl::Status&) override {}
};

class ModelCycleTest : public RegistryFixture {
 protected:
  ModelCycleTest() {
    registry_ = std::make_unique<ModelRegistry>(device_, budget_, options_, silent_);
  }
  ~ModelCycleTest() override { registry_.reset(); }

  void Cycle() {
    LoadReady(Request("llama"));
    ASSERT_TRUE(Unload("llama").ok());
    ExpectEmptyLedger();
  }

  SilentObserver silent_;
};

TEST_F(ModelCycleTest, AThousandCyclesLeaveNothingBehind) {
  for (int i = 0; i < kWarmUpCycleCount; ++i) {
    Cycle();
  }
  malloc_trim(0);
  const int64_t threads = CountEntries("/proc/self/task");
  const int64_t files = CountEntries("/proc/self/fd");
  std::vector<int64_t> resident_bytes;
  for (int i = 0; i < kCycleCount; ++i) {
    Cycle();
    resident_bytes.push_back(ResidentBytes());
  }
  EXPECT_EQ(CountEntries("/proc/self/task"), threads);
  EXPECT_EQ(CountEntries("/proc/self/fd"), files);
  const int64_t first = Median({resident_bytes.begin(), resident_bytes.begin() + kSampleCount});
  const int64_t last = Median({resident_bytes.end() - kSampleCount, resident_bytes.end()});
  RecordProperty("resident_growth_bytes", std::to_string(last - first));
  std::cout << "resident: " << first << " bytes at first, " << last - first << " more at last\n";
  if (kMeasuresMemory) {
    EXPECT_LT(last - first, 1_MiB);
  }
}

}  // namespace
}  // namespace nibble
