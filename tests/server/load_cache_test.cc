// The quantized cache as the registry uses it.

#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "loader/cache_manifest.h"
#include "loader/quantized_cache.h"
#include "tests/server/registry_fixture.h"
#include "tests/support/loading.h"

namespace nibble {
namespace {

using Kind = CacheEvent::Kind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Counts copies out of device memory, which may wait at a gate.
class CopyGatedDevice final : public Device {
 public:
  explicit CopyGatedDevice(Device& device) : device_(device) {}

  Gate& gate() { return gate_; }
  int64_t copies() const { return copies_; }

  const DeviceTraits& traits() const override { return device_.traits(); }
  std::string name() const override { return device_.name(); }
  std::string description() const override { return device_.description(); }
  absl::StatusOr<Memory> QueryMemory() const override { return device_.QueryMemory(); }
  absl::StatusOr<DeviceSpan> Allocate(int64_t bytes) override { return device_.Allocate(bytes); }
  void Free(DeviceSpan allocated) override { device_.Free(allocated); }
  absl::StatusOr<std::span<std::byte>> AllocateHost(int64_t bytes) override {
    return device_.AllocateHost(bytes);
  }
  void FreeHost(std::span<std::byte> allocated) override { device_.FreeHost(allocated); }
  int64_t host_bytes() const override { return device_.host_bytes(); }
  std::span<std::byte> HostView(DeviceSpan span) const override { return device_.HostView(span); }
  absl::StatusOr<std::unique_ptr<Queue>> NewQueue() override {
    absl::StatusOr<std::unique_ptr<Queue>> queue = device_.NewQueue();
    return queue.ok() ? std::make_unique<GatedQueue>(*std::move(queue), *this)
                      : absl::StatusOr<std::unique_ptr<Queue>>(queue.status());
  }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override { return device_.NewEvent(); }
  Ops& ops() override { return device_.ops(); }
  StepOps& step_ops() override { return device_.step_ops(); }
  absl::Status health() const override { return device_.health(); }

 private:
  class GatedQueue final : public Queue {
   public:
    GatedQueue(std::unique_ptr<Queue> queue, CopyGatedDevice& device)
        : queue_(std::move(queue)), device_(device) {}

    absl::Status CopyToDevice(std::span<const std::byte> source, DeviceSpan target) override {
      return queue_->CopyToDevice(source, target);
    }
    absl::Status CopyToHost(DeviceSpan source, std::span<std::byte> target) override {
      // Not the cells of a load.
      if (std::ssize(target) > 8) {
        ++device_.copies_;
        device_.gate_.Pass();
      }
      return queue_->CopyToHost(source, target);
    }
    absl::Status CopyOnDevice(DeviceSpan source, DeviceSpan target) override {
      return queue_->CopyOnDevice(source, target);
    }
    absl::Status Record(Event& event) override { return queue_->Record(event); }
    absl::Status Synchronize() override { return queue_->Synchronize(); }
    absl::StatusOr<std::unique_ptr<Recording>> RecordWork(
        std::function<absl::Status()> work) override {
      return queue_->RecordWork(std::move(work));
    }
    absl::Status Replay(Recording& recording) override { return queue_->Replay(recording); }

   private:
    const std::unique_ptr<Queue> queue_;
    CopyGatedDevice& device_;
  };

  Device& device_;
  Gate gate_;
  std::atomic<int64_t> copies_ = 0;
};

class CacheObserver final : public RegistryObserver {
 public:
  explicit CacheObserver(RegistryObserver& other) : other_(other) {}

  void OnStateChanged(const ModelInfo& model) override { other_.OnStateChanged(model); }
  void OnRead(int64_t bytes) override { other_.OnRead(bytes); }
  void OnLoadFinished(const ModelInfo& model, const absl::Status& status) override {
    other_.OnLoadFinished(model, status);
  }
  void OnRefused(absl::string_view reason) override { other_.OnRefused(reason); }
  void OnDeviceBroken(const absl::Status& health) override { other_.OnDeviceBroken(health); }
  void OnCache(const CacheEvent& event) override {
    MutexLock lock(mutex_);
    events_.push_back(event);
    changed_.SignalAll();
  }

  // The next event that a test has not seen.
  CacheEvent Next() {
    MutexLock lock(mutex_);
    while (events_.size() == seen_) {
      if (!changed_.WaitFor(mutex_, kNever)) {
        ADD_FAILURE() << "waited in vain";
        std::abort();
      }
    }
    return events_[seen_++];
  }

  std::vector<Kind> Rest() {
    MutexLock lock(mutex_);
    std::vector<Kind> kinds;
    for (; seen_ < events_.size(); ++seen_) {
      kinds.push_back(events_[seen_].kind);
    }
    return kinds;
  }

 private:
  RegistryObserver& other_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<CacheEvent> events_;
  size_t seen_ = 0;
};

class LoadCacheTest : public RegistryFixture {
 protected:
  LoadCacheTest() {
    std::filesystem::create_directory(path());
    options_.cache_directory = path().string();
  }

  ~LoadCacheTest() override {
    copies_.gate().Open();
    device_.gate().Open();
    registry_.reset();
  }

  std::filesystem::path path() const { return root_.path() / "cache"; }

  // Made by the first use; the first event says what the cache holds.
  ModelRegistry& registry() {
    if (registry_ == nullptr) {
      registry_ = std::make_unique<ModelRegistry>(copies_, budget_, options_, events_);
      opened_ = events_.Next();
    }
    return *registry_;
  }

  absl::StatusOr<ModelInfo> Load(const std::string& model, const std::string& source = "tiny") {
    registry();
    auto listener = std::make_shared<RecordingListener>();
    const auto ticket = registry().Load(Request(model, source), listener);
    EXPECT_TRUE(ticket.ok()) << ticket.status();
    return listener->AwaitDone();
  }

  // A load that puts its entry into the cache.
  void Fill(const std::string& source = "tiny") {
    ASSERT_TRUE(Load("filling", source).ok());
    EXPECT_EQ(events_.Next().kind, Kind::kMiss);
    const CacheEvent written = events_.Next();
    ASSERT_EQ(written.kind, Kind::kWritten) << written.why;
    EXPECT_GT(written.written_bytes, 0);
    ASSERT_TRUE(Unload("filling").ok());
  }

  // Every byte that a READY model holds, as exports see them.
  std::vector<PartBytes> Parts(const std::string& model) {
    const absl::StatusOr<ModelHandle> handle = registry().Acquire(model);
    EXPECT_TRUE(handle.ok()) << handle.status();
    std::vector<PartBytes> parts;
    for (const PlannedTensor& tensor : handle->weights().plan().tensors) {
      for (const PlannedPart& part : tensor.parts) {
        parts.push_back(LoadedPart(*host_, handle->weights(), tensor, part));
      }
    }
    return parts;
  }

  std::vector<std::filesystem::path> Entries() const {
    std::vector<std::filesystem::path> entries;
    for (const auto& entry : std::filesystem::directory_iterator(path())) {
      if (entry.is_directory()) {
        entries.push_back(entry.path());
      }
    }
    return entries;
  }

  void FlipBit(const std::filesystem::path& file, size_t place) {
    std::string content = ReadFile(file);
    content[place % content.size()] ^= 1;
    WriteFile(file, content);
  }

  CopyGatedDevice copies_{device_};
  CacheObserver events_{observer_};
  CacheEvent opened_;
};

TEST_F(LoadCacheTest, TheSecondLoadReadsTheEntryAndGivesTheSameWeights) {
  const absl::StatusOr<ModelInfo> first = Load("first");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(first->from_cache);
  EXPECT_EQ(first->read_bytes, first->plan->source_bytes);
  const std::vector<PartBytes> parts = Parts("first");
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  const CacheEvent written = events_.Next();
  ASSERT_EQ(written.kind, Kind::kWritten) << written.why;
  EXPECT_EQ(written.model, "first");
  EXPECT_EQ(written.usage.entry_count, 1);
  EXPECT_EQ(written.usage.bytes, written.written_bytes);
  ASSERT_TRUE(Unload("first").ok());

  const int64_t read_before = observer_.read_bytes();
  const absl::StatusOr<ModelInfo> second = Load("second");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(second->from_cache);
  EXPECT_TRUE(second->cache_fallback.ok());
  EXPECT_EQ(events_.Next().kind, Kind::kHit);
  EXPECT_TRUE(Parts("second") == parts);
  EXPECT_EQ(second->peak_bytes, first->peak_bytes);
  EXPECT_EQ(second->plan->source_bytes, first->plan->source_bytes) << "the plan is the source's";
  EXPECT_EQ(observer_.read_bytes() - read_before, second->read_bytes);
  EXPECT_LE(second->read_bytes, second->plan->weights_bytes);
  EXPECT_LT(second->read_bytes, first->read_bytes);
}

TEST_F(LoadCacheTest, ProgressCountsWhatIsRead) {
  Fill();
  registry();
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(registry().Load(Request("again"), listener).ok());
  const absl::StatusOr<ModelInfo> model = listener->AwaitDone();
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(listener->AwaitProgress().read_bytes, model->read_bytes);
  EXPECT_EQ(listener->AwaitProgress().source_bytes, model->read_bytes);
}

TEST_F(LoadCacheTest, ABrokenEntryIsSaidGivenUpAndWrittenAnew) {
  Fill();
  const std::vector<PartBytes> parts = [this] {
    EXPECT_TRUE(Load("sound").ok());
    return Parts("sound");
  }();
  EXPECT_EQ(events_.Next().kind, Kind::kHit);
  const std::filesystem::path entry = Entries().front();
  const std::pair<const char*, std::string> cases[] = {
      {"model.safetensors", std::string(kCacheChecksum)},
      {"config.json", std::string(kCacheChecksum)},
      {"nibble-cache-manifest", std::string(kCacheManifestBroken)},
  };
  for (const auto& [file, reason] : cases) {
    ASSERT_TRUE(Unload("sound").ok());
    FlipBit(entry / file, ReadFile(entry / file).size() / 2);
    const absl::StatusOr<ModelInfo> model = Load("sound");
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_FALSE(model->from_cache);
    EXPECT_EQ(DetailsOf(model->cache_fallback).reason, reason) << file;
    EXPECT_GE(model->read_bytes, model->plan->source_bytes) << "what was read of both";
    EXPECT_TRUE(Parts("sound") == parts) << file;
    const CacheEvent fallback = events_.Next();
    EXPECT_EQ(fallback.kind, Kind::kFallback);
    EXPECT_EQ(DetailsOf(fallback.why).reason, reason);
    EXPECT_EQ(events_.Next().kind, Kind::kWritten);
    ASSERT_TRUE(Unload("sound").ok());
    ASSERT_TRUE(Load("sound").ok());
    EXPECT_EQ(events_.Next().kind, Kind::kHit) << "it was written anew";
  }
}

// What stands there is no file of ours: it is neither waited for nor read, and makes room for one.
TEST_F(LoadCacheTest, WhateverStandsInTheManifestsPlaceIsGivenUp) {
  Fill();
  const std::filesystem::path manifest = Entries().front() / std::string(kManifestFileName);
  const std::function<void()> stand_ins[] = {
      [&] { ASSERT_EQ(mkfifo(manifest.c_str(), 0600), 0); },
      [&] { std::filesystem::create_directory(manifest); },
      [&] { std::filesystem::create_symlink("/dev/zero", manifest); },
  };
  for (const std::function<void()>& stand_in : stand_ins) {
    std::filesystem::remove(manifest);
    stand_in();
    ASSERT_TRUE(Load("model").ok());
    const CacheEvent fallback = events_.Next();
    EXPECT_EQ(fallback.kind, Kind::kFallback);
    EXPECT_EQ(DetailsOf(fallback.why).reason, kCacheManifestBroken);
    const CacheEvent written = events_.Next();
    EXPECT_EQ(written.kind, Kind::kWritten) << written.why;
    ASSERT_TRUE(Unload("model").ok());
  }
}

// A directory that only looks like an entry is told of, and kept.
TEST_F(LoadCacheTest, AnEntryThatCannotBeRemovedIsSaid) {
  Fill();
  const std::filesystem::path manifest = Entries().front() / std::string(kManifestFileName);
  std::filesystem::remove(manifest);
  std::filesystem::create_directory(manifest);
  WriteFile(manifest.parent_path() / std::string(kLeftoverFileName), "");  // Bars the way.
  WriteFile(manifest / "diary", "");
  ASSERT_TRUE(Load("model").ok());
  const CacheEvent fallback = events_.Next();
  EXPECT_EQ(fallback.kind, Kind::kFallback);
  EXPECT_EQ(DetailsOf(fallback.why).reason, kCacheManifestBroken);
  EXPECT_THAT(std::string(fallback.why.message()), HasSubstr("cannot be removed"));
  EXPECT_EQ(events_.Next().kind, Kind::kNotWritten);
  EXPECT_TRUE(std::filesystem::exists(manifest / "diary"));
}

TEST_F(LoadCacheTest, AChangedSourceMisses) {
  Fill();
  const std::filesystem::path shard = root_.path() / "tiny" / "model.safetensors";
  std::filesystem::last_write_time(
      shard, std::filesystem::last_write_time(shard) + std::chrono::seconds(1));
  ASSERT_TRUE(Load("again").ok());
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  EXPECT_EQ(events_.Next().usage.entry_count, 2);
}

TEST_F(LoadCacheTest, AnotherSpecMissesAndServingDoesNot) {
  Fill();
  LoadRequest request = Request("other");
  request.quantization.block_size = 128;
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(registry().Load(request, listener).ok());
  ASSERT_TRUE(listener->AwaitDone().ok());
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  EXPECT_EQ(events_.Next().kind, Kind::kWritten);
  request = Request("served");
  request.serving.max_sequences = 3;
  listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(registry().Load(request, listener).ok());
  ASSERT_TRUE(listener->AwaitDone().ok());
  EXPECT_EQ(events_.Next().kind, Kind::kHit);
}

TEST_F(LoadCacheTest, LoadsThatQuantizeNothingPassItBy) {
  registry();
  LoadRequest request = Request("stored");
  request.quantization.format = Format::kAsStored;
  auto listener = std::make_shared<RecordingListener>();
  ASSERT_TRUE(registry().Load(request, listener).ok());
  ASSERT_TRUE(listener->AwaitDone().ok());
  registry_->Shutdown(absl::ZeroDuration());
  EXPECT_THAT(events_.Rest(), IsEmpty());
  EXPECT_THAT(Entries(), IsEmpty());
}

TEST_F(LoadCacheTest, LoadsOfOneSpecAtOnceLeaveOneEntry) {
  options_.max_loads = 2;
  registry();
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  for (const char* model : {"a", "b", "c", "d"}) {
    listeners.push_back(std::make_shared<RecordingListener>());
    ASSERT_TRUE(registry().Load(Request(model), listeners.back()).ok());
  }
  for (const auto& listener : listeners) {
    EXPECT_TRUE(listener->AwaitDone().ok());
  }
  EXPECT_TRUE(Parts("a") == Parts("d"));
  registry_->Shutdown(absl::InfiniteDuration());
  EXPECT_LE(Entries().size(), 1);
}

TEST_F(LoadCacheTest, AnUnloadEndsTheWriteWithinOneCopy) {
  registry();
  copies_.gate().Close();
  ASSERT_TRUE(Load("model").ok());
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  copies_.gate().AwaitWaiting(1);  // The first copy of the write.
  const int64_t copies_before = copies_.copies();
  const Unloaded unloaded = StartUnload("model");
  copies_.gate().Admit(1);
  ASSERT_TRUE(unloaded->Await().ok());
  EXPECT_EQ(copies_.copies(), copies_before);
  const CacheEvent event = events_.Next();
  EXPECT_EQ(event.kind, Kind::kNotWritten);
  EXPECT_TRUE(absl::IsCancelled(event.why)) << event.why;
  EXPECT_THAT(Entries(), IsEmpty());
}

TEST_F(LoadCacheTest, AShutdownEndsTheWrite) {
  registry();
  copies_.gate().Close();
  ASSERT_TRUE(Load("model").ok());
  copies_.gate().AwaitWaiting(1);
  std::thread shutdown([this] { registry_->Shutdown(absl::InfiniteDuration()); });
  observer_.AwaitState("model", ModelState::kDraining);
  EXPECT_EQ(StateOf("model"), ModelState::kDraining) << "and the lock is free again";
  copies_.gate().Admit(1);
  shutdown.join();
  EXPECT_THAT(Entries(), IsEmpty());
}

TEST_F(LoadCacheTest, AWriteIsNoUseOfTheModel) {
  registry();
  const absl::StatusOr<ModelInfo> model = Load("model");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  EXPECT_EQ(events_.Next().kind, Kind::kWritten);
  EXPECT_EQ(registry().Get("model")->last_used, model->last_used);
}

// As another daemon would hold it.
TEST_F(LoadCacheTest, WaitsForAnotherWriterButNotForEver) {
  registry();
  const auto other = *QuantizedCache::Open(path().string(), {});
  absl::StatusOr<CacheLock> lock = other->Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();
  ASSERT_TRUE(Load("first").ok());
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  ASSERT_TRUE(Unload("first").ok()) << "nothing holds it";
  EXPECT_EQ(events_.Next().kind, Kind::kNotWritten);
  ASSERT_TRUE(Load("second").ok());
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  lock = absl::CancelledError("");
  const CacheEvent event = events_.Next();
  EXPECT_EQ(event.kind, Kind::kWritten) << event.why;
  EXPECT_EQ(event.model, "second");
}

TEST_F(LoadCacheTest, EvictsWhatWasUsedLongestAgo) {
  TinyLlamaShape shape;  // Large beside what a write claims for the file system.
  shape.hidden_size = 256;
  shape.intermediate_size = 1024;
  TinyLlama(shape).Write(root_.path() / "big");
  const auto load = [this](int64_t block_size) {
    LoadRequest request = Request("model", "big");
    request.quantization.block_size = block_size;
    auto listener = std::make_shared<RecordingListener>();
    EXPECT_TRUE(registry().Load(request, listener).ok());
    EXPECT_TRUE(listener->AwaitDone().ok());
    const Kind kind = events_.Next().kind;
    const CacheEvent written = kind == Kind::kHit ? CacheEvent() : events_.Next();
    EXPECT_TRUE(Unload("model").ok());
    return std::pair(kind, written);
  };
  EXPECT_EQ(load(64).second.kind, Kind::kWritten);
  const auto [kind, second] = load(128);
  EXPECT_EQ(second.kind, Kind::kWritten);
  EXPECT_EQ(load(64).first, Kind::kHit);  // So 128 is what was used longest ago.
  registry_.reset();
  options_.cache_limit.bytes = second.usage.bytes + second.usage.bytes / 4;
  EXPECT_EQ(load(256).second.evicted_count, 1);
  EXPECT_EQ(load(64).first, Kind::kHit);
  EXPECT_EQ(load(128).first, Kind::kMiss);
}

TEST_F(LoadCacheTest, WhatDoesNotFitIsSaidAndNotWritten) {
  options_.cache_limit.bytes = 1000;
  registry();
  ASSERT_TRUE(Load("model").ok());
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  const CacheEvent event = events_.Next();
  EXPECT_EQ(event.kind, Kind::kNotWritten);
  EXPECT_EQ(DetailsOf(event.why).reason, "CACHE_FULL");
  EXPECT_THAT(Entries(), IsEmpty());
}

TEST_F(LoadCacheTest, WithoutItsDirectoryThereIsOneWarningAndNoCache) {
  options_.cache_directory += "-gone";
  registry();
  EXPECT_EQ(opened_.kind, Kind::kOff);
  EXPECT_TRUE(absl::IsNotFound(opened_.why)) << opened_.why;
  ASSERT_TRUE(Load("model").ok());
  registry_->Shutdown(absl::ZeroDuration());
  EXPECT_THAT(events_.Rest(), IsEmpty());
}

TEST_F(LoadCacheTest, RemovesWhatAKilledWriterLeft) {
  const std::filesystem::path partial = path() / (std::string(32, 'a') + ".partial-00000000");
  std::filesystem::create_directory(partial);
  WriteFile(partial / std::string(kLeftoverFileName), "");
  WriteFile(partial / "model.safetensors", "half");
  registry();
  EXPECT_EQ(opened_.kind, Kind::kOpened);
  EXPECT_FALSE(std::filesystem::exists(partial));
}

// Between the lock and the first copy nothing holds the model: an unload may take it right then.
TEST_F(LoadCacheTest, AModelMayGoWhileItsWriterRemovesWhatAnotherLeft) {
  constexpr int kLeftFileCount = 20'000;  // Removing them takes longer than an unload.
  registry();
  const std::filesystem::path partial = path() / (std::string(32, 'a') + ".partial-00000000");
  std::filesystem::create_directory(partial);
  WriteFile(partial / std::string(kLeftoverFileName), "");
  for (int index = 0; index < kLeftFileCount; ++index) {
    WriteFile(partial / std::to_string(index), "");
  }
  const int watch = inotify_init1(IN_CLOEXEC);
  ASSERT_GE(inotify_add_watch(watch, partial.c_str(), IN_DELETE), 0);
  ASSERT_TRUE(Load("model").ok());
  alignas(inotify_event) std::array<char, sizeof(inotify_event) + NAME_MAX + 1> deleted;
  ASSERT_GT(read(watch, deleted.data(), deleted.size()), 0);  // It is at work.
  close(watch);
  ASSERT_TRUE(Unload("model").ok());
  EXPECT_TRUE(std::filesystem::exists(partial)) << "or the unload came too late to show anything";
  EXPECT_EQ(events_.Next().kind, Kind::kMiss);
  const CacheEvent event = events_.Next();
  EXPECT_EQ(event.kind, Kind::kNotWritten);
  EXPECT_TRUE(absl::IsCancelled(event.why)) << event.why;
  EXPECT_THAT(Entries(), IsEmpty());
}

TEST_F(LoadCacheTest, ALoadIsCancelledWhileItReadsTheEntry) {
  Fill();
  // Nothing is quantized from the entry, so the gate of quantizers would not stop it; the listener
  // leaves as soon as it can, and either way everything is back.
  registry();
  auto listener = std::make_shared<RecordingListener>();
  const auto ticket = registry().Load(Request("left"), listener);
  ASSERT_TRUE(ticket.ok());
  registry().Leave(*ticket);
  registry_->Shutdown(absl::ZeroDuration());
  ExpectEmptyLedger();
}

}  // namespace
}  // namespace nibble
