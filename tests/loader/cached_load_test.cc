// Loads from an entry of the quantized cache: the same bytes in the same memory, or else from the
// source, and never anything in between.

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "loader/cache_entry.h"
#include "loader/quantizing_loader.h"
#include "tests/support/cache_files.h"
#include "tests/support/faulty_device.h"
#include "tests/support/faulty_directory.h"
#include "tests/support/lazy_device.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// Every plane of a model, in the order of its plan, and the means of its scales.
std::vector<std::vector<std::byte>> AllPlanes(Device& device, const Weights& weights) {
  std::vector<std::vector<std::byte>> planes;
  std::vector<std::byte> means;
  for (const PlannedTensor& tensor : weights.plan().tensors) {
    for (const PlannedPart& part : tensor.parts) {
      for (const Plane plane : kPlanes) {
        planes.push_back(LoadedPlane(device, weights, tensor, part, plane));
      }
      const float mean = LoadedPart(device, weights, tensor, part).scale_mean;
      const auto bytes = std::as_bytes(std::span(&mean, 1));
      means.insert(means.end(), bytes.begin(), bytes.end());
    }
  }
  planes.push_back(std::move(means));
  return planes;
}

class WatchingObserver : public LoadObserver {
 public:
  void OnProgress(const LoadProgress& progress) override {
    int64_t seen = read_bytes_;
    while (seen < progress.read_bytes &&
           !read_bytes_.compare_exchange_weak(seen, progress.read_bytes)) {
    }
    ++tiles_;
  }
  bool cancelled() const override { return cancel_after_ >= 0 && tiles_ >= cancel_after_; }
  void OnFallback(const absl::Status& why) override {
    fallbacks_.push_back(why);
    read_bytes_ = 0;
  }

  void CancelAfter(int64_t tiles) { cancel_after_ = tiles; }
  int64_t read_bytes() const { return read_bytes_; }
  const std::vector<absl::Status>& fallbacks() const { return fallbacks_; }

 private:
  std::atomic<int64_t> read_bytes_ = 0;
  std::atomic<int64_t> tiles_ = 0;
  int64_t cancel_after_ = -1;
  std::vector<absl::Status> fallbacks_;
};

// A model of every kind of tensor that a plan knows, loaded once, and its entry.
class CachedLoadTest : public testing::TestWithParam<std::tuple<bool, bool>> {
 protected:
  CachedLoadTest() {
    TinyCheckpoint tiny;
    tiny.config_json = R"({"model_type":"qwen3_5_moe_text"})";
    const std::string layer = "model.language_model.layers.0.";
    tiny.Add(layer + "self_attn.q_proj.weight", {64, 64});
    tiny.Add(layer + "self_attn.k_proj.weight", {1, 1});
    tiny.Add(layer + "self_attn.v_proj.weight", {33, 65}, Dtype::kF32);
    tiny.Add(layer + "self_attn.o_proj.weight", {1351, 333}, Dtype::kF16);  // Planes of 4 pieces.
    tiny.Add(layer + "mlp.experts.gate_up_proj", {3, 2 * 7, 37});
    tiny.Add(layer + "mlp.experts.down_proj", {3, 37, 7}, Dtype::kBf16, "", 1);
    tiny.Add(layer + "input_layernorm.weight", {64}, Dtype::kF32, "", 1);
    tiny.Add("model.language_model.layers.1.mlp.experts.gate_up_proj", {3, 2 * 7, 37});  // Kept.
    tiny.Add("lm_head.weight", {501, 301}, Dtype::kBf16, "", 1);
    tiny.Write(source_path());
    checkpoint_ = *OpenForTest(source_path());
    QuantizationSpec spec;
    spec.double_quantization = std::get<1>(GetParam());
    spec.keep = {"*layers.1.*"};
    plan_ = PlanForTest(checkpoint_, device().traits(), spec, 1_MiB);
    key_ = MakeCacheKey(checkpoint_, *plan_);

    WatchingObserver observer;
    const auto weights = Load({{&checkpoint_, plan_}}, observer);
    Check(weights.ok(), "the source loads");
    planes_ = AllPlanes(device(), **weights);
    HandWrittenEntry(device(), **weights, key_).Write(entry_path());
  }

  Device& device() { return std::get<0>(GetParam()) ? static_cast<Device&>(lazy_) : *host_; }
  std::filesystem::path source_path() const { return scratch_.path() / "source"; }
  std::filesystem::path entry_path() const { return scratch_.path() / "entry"; }

  std::shared_ptr<const CheckpointDirectory> EntryDirectory() const {
    return *OpenCheckpointDirectory(scratch_.path().string(), entry_path().string());
  }

  absl::StatusOr<CacheEntry> OpenEntry() const {
    return OpenCacheEntry(EntryDirectory(), key_, *plan_);
  }

  absl::StatusOr<std::unique_ptr<Weights>> Load(const std::vector<LoadSource>& sources,
                                                LoadObserver& observer, Device* device = nullptr,
                                                int reader_count = 3) {
    absl::StatusOr<VramBudget::Reservation> reservation = budget_.Reserve("model", plan_->peak());
    Check(reservation.ok(), "the budget is free");
    LoaderOptions options;
    options.reader_count = reader_count;
    return LoadWeights(device == nullptr ? this->device() : *device, sources,
                       *std::move(reservation), options, observer);
  }

  absl::StatusOr<std::unique_ptr<Weights>> LoadEntry(const CacheEntry& entry,
                                                     LoadObserver& observer,
                                                     Device* device = nullptr) {
    return Load({{&entry.checkpoint, entry.plan, entry.checksums.get()}, {&checkpoint_, plan_}},
                observer, device);
  }

  // What a daemon does: from the entry if it can be opened, else from the source. Expects the right
  // weights whatever happens. Returns why the entry was not what was loaded.
  absl::Status LoadAnyhow() {
    WatchingObserver observer;
    const absl::StatusOr<CacheEntry> entry = OpenEntry();
    const auto weights =
        entry.ok() ? LoadEntry(*entry, observer) : Load({{&checkpoint_, plan_}}, observer);
    EXPECT_TRUE(weights.ok()) << weights.status();
    if (weights.ok()) {
      EXPECT_TRUE(AllPlanes(device(), **weights) == planes_);
      EXPECT_EQ((*weights)->allocated_peak_bytes(), plan_->peak_bytes());
    }
    if (!entry.ok()) {
      return entry.status();
    }
    return observer.fallbacks().empty() ? absl::OkStatus() : observer.fallbacks().front();
  }

  ScratchDirectory scratch_;
  const std::unique_ptr<Device> host_ = OpenHostDevice(64_MiB);
  LazyDevice lazy_{*host_};
  VramBudget budget_{64_MiB};
  Checkpoint checkpoint_;
  std::shared_ptr<const LoadPlan> plan_;
  CacheKey key_;
  std::vector<std::vector<std::byte>> planes_;
};

INSTANTIATE_TEST_SUITE_P(Devices, CachedLoadTest,
                         testing::Combine(testing::Bool(), testing::Bool()), [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param) ? "Lazy" : "Host",
                                               std::get<1>(info.param) ? "_DoubleQuantized" : "");
                         });

TEST_P(CachedLoadTest, GivesTheSameBytesInTheSameMemoryAndReadsNothingElse) {
  const absl::StatusOr<CacheEntry> entry = OpenEntry();
  ASSERT_TRUE(entry.ok()) << entry.status();
  int64_t plane_bytes = -std::ssize(planes_.back());  // Means are in no plane.
  for (const std::vector<std::byte>& plane : planes_) {
    plane_bytes += std::ssize(plane);
  }
  EXPECT_EQ(entry->plan->source_bytes, plane_bytes);
  EXPECT_EQ(entry->plan->weights_bytes, plan_->weights_bytes);
  EXPECT_EQ(entry->plan->peak_bytes(), plan_->peak_bytes());

  std::filesystem::remove_all(source_path());  // So that nothing can come from there.
  WatchingObserver observer;
  const auto weights = LoadEntry(*entry, observer);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_TRUE(observer.fallbacks().empty());
  EXPECT_EQ(observer.read_bytes(), plane_bytes);
  EXPECT_TRUE(AllPlanes(device(), **weights) == planes_);
  EXPECT_EQ((*weights)->allocated_peak_bytes(), plan_->peak_bytes());
  EXPECT_EQ(&(*weights)->plan(), plan_.get()) << "reports and exports see the source's plan";
}

TEST_P(CachedLoadTest, FallsBackToTheSourceWhicheverBitIsFlipped) {
  std::mt19937 random(20261124);
  for (const auto& file : std::filesystem::directory_iterator(entry_path())) {
    const std::string content = ReadFile(file.path());
    std::vector<size_t> places = {0, content.size() / 2, content.size() - 1};
    for (int round = 0; round < 40; ++round) {
      places.push_back(random() % content.size());
    }
    for (const size_t place : places) {
      std::string flipped = content;
      flipped[place] = static_cast<char>(flipped[place] ^ (1 << random() % 8));
      WriteFile(file.path(), flipped);
      const absl::Status why = LoadAnyhow();
      EXPECT_TRUE(absl::IsDataLoss(why)) << file.path() << " at " << place << ": " << why;
      EXPECT_THAT(DetailsOf(why).reason, testing::AnyOf(kCacheChecksum, kCacheManifestBroken));
    }
    WriteFile(file.path(), content);
    EXPECT_TRUE(LoadAnyhow().ok());
  }
}

TEST_P(CachedLoadTest, FallsBackFromFilesThatAreShortLongOrGone) {
  for (const auto& file : std::filesystem::directory_iterator(entry_path())) {
    const std::string name = file.path().filename().string();
    const std::string content = ReadFile(file.path());
    const bool is_manifest = name == kManifestFileName;
    WriteFile(file.path(), content + "x");
    EXPECT_EQ(DetailsOf(LoadAnyhow()).reason, is_manifest ? kCacheManifestBroken : kCacheFileSize);
    for (const size_t size : {size_t{0}, size_t{7}, content.size() / 2, content.size() - 1}) {
      WriteFile(file.path(), content.substr(0, size));
      EXPECT_EQ(DetailsOf(LoadAnyhow()).reason,
                is_manifest ? kCacheManifestBroken : kCacheFileSize);
    }
    std::filesystem::remove(file.path());
    const absl::Status missing = LoadAnyhow();
    EXPECT_EQ(DetailsOf(missing).reason, is_manifest ? "" : kCacheFileMissing) << missing;
    EXPECT_EQ(absl::IsNotFound(missing), is_manifest) << "without a manifest there is no entry";
    WriteFile(file.path(), content);
  }
  EXPECT_TRUE(LoadAnyhow().ok());
}

TEST_P(CachedLoadTest, FallsBackWhenTheEntryChangesAfterItWasOpened) {
  const std::filesystem::path file = entry_path() / "part-0.safetensors";
  const std::string content = ReadFile(file);
  const auto change = {
      std::pair<const char*, std::function<void()>>{"replaced",
                                                    [&] {
                                                      std::filesystem::remove(file);
                                                      WriteFile(file, content);
                                                    }},
      {"truncated", [&] { TruncateFile(file, 1); }},
      {"gone", [&] { std::filesystem::remove(file); }},
  };
  for (const auto& [what, make] : change) {
    WriteFile(file, content);
    const absl::StatusOr<CacheEntry> entry = OpenEntry();
    ASSERT_TRUE(entry.ok()) << entry.status();
    make();
    WatchingObserver observer;
    const auto weights = LoadEntry(*entry, observer);
    ASSERT_TRUE(weights.ok()) << what << weights.status();
    EXPECT_TRUE(AllPlanes(device(), **weights) == planes_) << what;
    ASSERT_EQ(observer.fallbacks().size(), 1) << what;
    EXPECT_NE(DetailsOf(observer.fallbacks().front()).reason, "") << what;
    EXPECT_EQ(observer.read_bytes(), plan_->source_bytes) << "progress of the source alone";
  }
}

TEST_P(CachedLoadTest, FallsBackWhicheverFileCallFails) {
  int64_t fallbacks = 0;
  for (int64_t call = 0;; ++call) {
    const auto faulty = std::make_shared<FaultyDirectory>(EntryDirectory(), call);
    const absl::StatusOr<CacheEntry> entry = OpenCacheEntry(faulty, key_, *plan_);
    if (!entry.ok()) {
      EXPECT_EQ(DetailsOf(entry.status()).reason, kCacheUnreadable) << entry.status();
      continue;
    }
    WatchingObserver observer;
    const auto weights = LoadEntry(*entry, observer);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_TRUE(AllPlanes(device(), **weights) == planes_);
    if (faulty->call_count() <= call) {
      EXPECT_TRUE(observer.fallbacks().empty());
      break;
    }
    ASSERT_EQ(observer.fallbacks().size(), 1);
    EXPECT_EQ(DetailsOf(observer.fallbacks().front()).reason, kCacheUnreadable);
    EXPECT_THAT(std::string(observer.fallbacks().front().message()), HasSubstr("the disk failed"));
    ++fallbacks;
  }
  EXPECT_GT(fallbacks, 10);
}

TEST_P(CachedLoadTest, DoesNotBlameTheEntryForWhatTheDeviceDoes) {
  const absl::StatusOr<CacheEntry> entry = OpenEntry();
  ASSERT_TRUE(entry.ok()) << entry.status();
  FaultyDevice faulty(device());
  for (int64_t call = 1;; ++call) {
    faulty.FailCall(call);
    WatchingObserver observer;
    const absl::Status status = LoadEntry(*entry, observer, &faulty).status();
    EXPECT_TRUE(observer.fallbacks().empty()) << faulty.failed_call();
    EXPECT_EQ(faulty.live_objects(), 0);
    EXPECT_EQ(budget_.Snapshot().reserved.total(), 0);
    if (!faulty.has_failed()) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    EXPECT_FALSE(status.ok()) << faulty.failed_call();
  }
}

TEST_P(CachedLoadTest, IsCancelledFromTheEntryAndFromTheSourceAfterIt) {
  const absl::StatusOr<CacheEntry> entry = OpenEntry();
  ASSERT_TRUE(entry.ok()) << entry.status();
  WatchingObserver observer;
  observer.CancelAfter(2);
  EXPECT_TRUE(absl::IsCancelled(LoadEntry(*entry, observer).status()));
  EXPECT_TRUE(observer.fallbacks().empty());

  std::filesystem::remove(entry_path() / "part-1.safetensors");
  WatchingObserver second;
  second.CancelAfter(2);
  EXPECT_TRUE(absl::IsCancelled(LoadEntry(*entry, second).status()));
  EXPECT_EQ(second.fallbacks().size(), 1);
}

TEST_P(CachedLoadTest, SaysWhatIsWrongWithTheSourceAfterTheEntryFailed) {
  const absl::StatusOr<CacheEntry> entry = OpenEntry();
  ASSERT_TRUE(entry.ok()) << entry.status();
  std::filesystem::remove(entry_path() / "part-1.safetensors");
  TruncateFile(source_path() / "model-00002-of-00002.safetensors", 5);
  WatchingObserver observer;
  const absl::Status status = LoadEntry(*entry, observer).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(DetailsOf(status).reason, "CHECKPOINT_CHANGED");
  EXPECT_EQ(observer.fallbacks().size(), 1);
  EXPECT_EQ(budget_.Snapshot().reserved.total(), 0);
}

TEST_P(CachedLoadTest, RefusesTheManifestOfAnotherLoad) {
  const CacheKey other = {key_.text + " ", key_.entry_name};
  EXPECT_EQ(DetailsOf(OpenCacheEntry(EntryDirectory(), other, *plan_).status()).reason,
            kCacheManifestBroken);
  // The same key, but a plan with other planes, as a forgotten version number would make it.
  LoadPlan wider = *plan_;
  wider.tensors.front().block_size *= 2;
  const absl::Status status = OpenCacheEntry(EntryDirectory(), key_, wider).status();
  EXPECT_EQ(DetailsOf(status).reason, kCacheManifestBroken);
  EXPECT_THAT(std::string(status.message()), HasSubstr(wider.tensors.front().name));
}

}  // namespace
}  // namespace nibble
