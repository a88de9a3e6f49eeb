// Everything that can go wrong in a load, one thing at a time: the error names what it was, and all
// memory, budget, threads and queues are given back.

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "loader/quantizing_loader.h"
#include "tests/support/faulty_device.h"
#include "tests/support/faulty_directory.h"
#include "tests/support/lazy_device.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

constexpr char kUp[] = "model.layers.0.mlp.up_proj.weight";
constexpr char kNorm[] = "model.norm.weight";

class LoadFailuresTest : public testing::Test {
 protected:
  // Two shards, a tensor of many tiles, one that is kept.
  LoadFailuresTest() {
    TinyCheckpoint tiny;
    tiny.Add(kUp, {200, 601}, Dtype::kF32);
    tiny.Add(kNorm, {64}, Dtype::kBf16, "", 1);
    tiny.Add("lm_head.weight", {300, 401}, Dtype::kBf16, "", 1);
    Write(tiny);
  }

  void Write(const TinyCheckpoint& tiny) {
    const std::filesystem::path directory = scratch_.path() / std::to_string(++written_count_);
    tiny.Write(directory);
    shard_path_ = directory / tiny.shard_file_name(0);
    checkpoint_ = *OpenForTest(directory);
    plan_ = PlanForTest(checkpoint_, kHostTraits, spec_);
  }

  // Many small tiles: 15 readers share 1 MiB of staging, whatever the machine.
  absl::Status Load(LoadObserver& observer, int reader_count = 15) {
    return LoadForTest(*device_, budget_, checkpoint_, plan_, observer, reader_count).status();
  }

  void ExpectEverythingIsBack() {
    const LedgerSnapshot snapshot = budget_.Snapshot();
    EXPECT_EQ(snapshot.reserved.total(), 0);
    EXPECT_EQ(snapshot.allocated.total(), 0);
    EXPECT_EQ(device_->QueryMemory()->free_bytes, device_->QueryMemory()->total_bytes);
    EXPECT_EQ(device_->host_bytes(), 0);
  }

  void ExpectTheNextLoadWorks() {
    NullObserver observer;
    EXPECT_TRUE(Load(observer).ok());
    ExpectEverythingIsBack();
  }

  ScratchDirectory scratch_;
  int written_count_ = 0;
  std::filesystem::path shard_path_;
  QuantizationSpec spec_;
  Checkpoint checkpoint_;
  std::shared_ptr<const LoadPlan> plan_;
  std::unique_ptr<Device> device_ = OpenHostDevice(64_MiB);
  VramBudget budget_{64_MiB};
};

void FailEveryCallInTurn(Device& device, VramBudget& budget, const Checkpoint& checkpoint,
                         const std::shared_ptr<const LoadPlan>& plan, int reader_count,
                         const std::function<void()>& expect_everything_is_back) {
  FaultyDevice faulty(device);
  NullObserver observer;
  int64_t failures = 0;
  for (int64_t call = 1;; ++call) {
    faulty.FailCall(call);
    const absl::Status status =
        LoadForTest(faulty, budget, checkpoint, plan, observer, reader_count).status();
    EXPECT_EQ(faulty.live_objects(), 0) << call;
    expect_everything_is_back();
    if (!faulty.has_failed()) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    EXPECT_FALSE(status.ok()) << "call " << call << ", " << faulty.failed_call();
    if (faulty.failed_call() == "Allocate") {
      EXPECT_EQ(DetailsOf(status).reason, "DEVICE_MEMORY_TAKEN");
    }
    ++failures;
  }
  EXPECT_GT(failures, 10);
}

TEST_F(LoadFailuresTest, GivesEverythingBackWhicheverDeviceCallFails) {
  for (const int reader_count : {1, 3}) {
    FailEveryCallInTurn(*device_, budget_, checkpoint_, plan_, reader_count,
                        [this] { ExpectEverythingIsBack(); });
  }
}

TEST_F(LoadFailuresTest, GivesEverythingBackWhicheverCallOfALazyDeviceFails) {
  LazyDevice lazy(*device_);
  const auto plan = PlanForTest(checkpoint_, lazy.traits());
  for (const int reader_count : {1, 3}) {
    FailEveryCallInTurn(lazy, budget_, checkpoint_, plan, reader_count,
                        [this] { ExpectEverythingIsBack(); });
  }
}

TEST_F(LoadFailuresTest, GivesEverythingBackWhicheverFileCallFails) {
  const std::shared_ptr<const CheckpointDirectory> directory = checkpoint_.directory;
  NullObserver observer;
  for (int64_t call = 0;; ++call) {
    const auto faulty = std::make_shared<FaultyDirectory>(directory, call);
    checkpoint_.directory = faulty;
    const absl::Status status = Load(observer);
    ExpectEverythingIsBack();
    if (faulty->call_count() <= call) {
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_GT(call, 10);
      break;
    }
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("the disk failed"));
  }
}

// Cancels once it has been asked `tiles` times, as a client that goes away does.
class CancellingObserver : public NullObserver {
 public:
  explicit CancellingObserver(int64_t tiles) : tiles_left_(tiles) {}
  bool cancelled() const override { return --tiles_left_ < 0; }

 private:
  mutable std::atomic<int64_t> tiles_left_;
};

TEST_F(LoadFailuresTest, StopsAtAnyTileWhenCancelled) {
  for (const int reader_count : {1, 15}) {
    int64_t tiles = 0;
    for (;; ++tiles) {
      CancellingObserver observer(tiles);
      const absl::Status status = Load(observer, reader_count);
      ExpectEverythingIsBack();
      if (status.ok()) {
        break;  // There were no more tiles to be asked about.
      }
      EXPECT_TRUE(absl::IsCancelled(status)) << status;
    }
    // Of at most 256 KiB: two of the first tensor, one of each other; and each reader asks once
    // more at the end.
    EXPECT_GT(tiles, 4);
  }
  ExpectTheNextLoadWorks();
}

// Does something to the checkpoint when the first tile is done.
class MeddlingObserver : public NullObserver {
 public:
  explicit MeddlingObserver(std::function<void()> meddle) : meddle_(std::move(meddle)) {}
  void OnProgress(const LoadProgress&) override {
    if (!done_.exchange(true)) {
      meddle_();
    }
  }

 private:
  std::atomic<bool> done_ = false;
  std::function<void()> meddle_;
};

TEST_F(LoadFailuresTest, NoticesAShardThatIsTruncatedWhileLoading) {
  MeddlingObserver observer([this] { TruncateFile(shard_path_, 1000); });
  const absl::Status status = Load(observer, 1);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(shard_path_.filename().string()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("changed while loading"));
  ExpectEverythingIsBack();
}

TEST_F(LoadFailuresTest, NoticesAShardThatIsRewrittenWhileLoading) {
  MeddlingObserver observer([this] {
    OverwriteFile(shard_path_, static_cast<int64_t>(std::filesystem::file_size(shard_path_)) - 4,
                  "abcd");
    // Times of files have the grain of a scheduler tick; this one certainly differs.
    std::filesystem::last_write_time(
        shard_path_, std::filesystem::last_write_time(shard_path_) + std::chrono::hours(1));
  });
  const absl::Status status = Load(observer);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("changed while loading"));
  ExpectEverythingIsBack();
}

TEST_F(LoadFailuresTest, NoticesAShardThatWasReplacedSinceItWasPlanned) {
  const std::string content = ReadFile(shard_path_);
  std::filesystem::remove(shard_path_);
  WriteFile(shard_path_, content + "x");
  NullObserver observer;
  const absl::Status status = Load(observer);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("changed since it was planned"));
  EXPECT_EQ(DetailsOf(status).resource, shard_path_.filename().string());
  ExpectEverythingIsBack();
}

TEST_F(LoadFailuresTest, SaysThatAShardIsGone) {
  std::filesystem::remove(shard_path_);
  NullObserver observer;
  EXPECT_TRUE(absl::IsNotFound(Load(observer)));
  ExpectEverythingIsBack();
}

// F32 elements with non-finite ones at given places.
std::string Poisoned(int64_t element_count, const std::vector<std::pair<int64_t, float>>& bad) {
  std::string data = SeededData(Dtype::kF32, element_count, 5);
  for (const auto& [index, value] : bad) {
    std::memcpy(data.data() + index * 4, &value, 4);
  }
  return data;
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST_F(LoadFailuresTest, NamesTheFirstElementThatIsNotFiniteWhateverTheThreadsDo) {
  constexpr int64_t kCount = 200 * 601;
  for (const auto& [first, value, word] :
       {std::tuple(int64_t{0}, kNan, "found NaN"), std::tuple(int64_t{50'001}, kInf, "found Inf"),
        std::tuple(kCount - 1, -kInf, "found -Inf")}) {
    TinyCheckpoint tiny;
    tiny.Add(kUp, {200, 601}, Dtype::kF32, Poisoned(kCount, {{kCount - 1, -kInf}, {first, value}}));
    Write(tiny);
    for (const int reader_count : {1, 15}) {
      NullObserver observer;
      const absl::Status status = Load(observer, reader_count);
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      const std::string message(status.message());
      EXPECT_THAT(message, HasSubstr("model.safetensors: "));
      EXPECT_THAT(message, HasSubstr(kUp));
      EXPECT_THAT(message, HasSubstr(word));
      EXPECT_THAT(message, HasSubstr("element " + std::to_string(first) + " of [200, 601]"));
      ExpectEverythingIsBack();
    }
  }
}

TEST_F(LoadFailuresTest, CountsElementsThroughTheWholeFusedTensor) {
  constexpr char kFused[] = "model.language_model.layers.0.mlp.experts.gate_up_proj";
  TinyCheckpoint tiny;
  tiny.config_json = R"({"model_type":"qwen3_5_moe_text"})";
  tiny.Add(kFused, {4, 6, 11}, Dtype::kF32, Poisoned(4 * 6 * 11, {{3 * 66 + 40, kNan}}));
  Write(tiny);
  NullObserver observer;
  EXPECT_THAT(std::string(Load(observer).message()),
              HasSubstr("element " + std::to_string(3 * 66 + 40) + " of [4, 6, 11]"));
}

TEST_F(LoadFailuresTest, ChecksWhatIsKeptToo) {
  TinyCheckpoint tiny;
  tiny.Add(kUp, {8, 8});
  tiny.Add(kNorm, {64}, Dtype::kF32, Poisoned(64, {{17, kNan}}));
  Write(tiny);
  LazyDevice lazy(*device_);
  NullObserver observer;
  for (const bool on_lazy_device : {false, true}) {
    Device& device = on_lazy_device ? static_cast<Device&>(lazy) : *device_;
    const absl::Status status = LoadForTest(device, budget_, checkpoint_,
                                            PlanForTest(checkpoint_, device.traits()), observer)
                                    .status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(kNorm));
    EXPECT_THAT(std::string(status.message()), HasSubstr("element 17 of [64]"));
  }
}

TEST_F(LoadFailuresTest, LoadsNonFiniteElementsWhereThatIsAllowed) {
  spec_.allow_non_finite = true;
  TinyCheckpoint tiny;
  const std::string data = Poisoned(200 * 601, {{70, kNan}, {50'001, kInf}});
  tiny.Add(kUp, {200, 601}, Dtype::kF32, data);
  Write(tiny);
  NullObserver observer;
  const auto weights = LoadForTest(*device_, budget_, checkpoint_, plan_, observer);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const PlannedTensor& tensor = plan_->tensors[0];
  EXPECT_TRUE(LoadedPart(*device_, **weights, tensor, tensor.parts[0]) ==
              ExpectedPart(tensor, std::as_bytes(std::span(data))));
}

TEST_F(LoadFailuresTest, SaysThatTheDeviceIsTakenByOthers) {
  // The budget promises more than the device has.
  device_ = OpenHostDevice(plan_->peak_bytes() - 4096);
  NullObserver observer;
  const absl::Status status = Load(observer);
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(DetailsOf(status).reason, "DEVICE_MEMORY_TAKEN");
  ExpectEverythingIsBack();
}

}  // namespace
}  // namespace nibble
