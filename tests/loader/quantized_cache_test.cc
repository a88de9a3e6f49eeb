// The directory of cache entries: what is found, what makes room for what, who may write.

#include "loader/quantized_cache.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "loader/cache_manifest.h"
#include "tests/support/cache_files.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class QuantizedCacheTest : public testing::Test {
 protected:
  QuantizedCacheTest() { std::filesystem::create_directory(path()); }

  std::filesystem::path path() const { return scratch_.path() / "cache"; }

  std::unique_ptr<QuantizedCache> Open(const CacheLimit& limit = {}) const {
    absl::StatusOr<std::unique_ptr<QuantizedCache>> cache =
        QuantizedCache::Open(path().string(), limit);
    Check(cache.ok(), "the directory is there");
    return *std::move(cache);
  }

  static std::string Name(char digit) { return std::string(32, digit); }
  static CacheKey Key(char digit) { return {"", Name(digit)}; }

  // A directory that looks like an entry of `bytes`, used so many seconds after the epoch.
  void MakeEntry(char digit, int64_t bytes, int64_t used_seconds) {
    const std::filesystem::path directory = path() / Name(digit);
    std::filesystem::create_directory(directory);
    WriteFile(directory / std::string(kManifestFileName), "manifest");
    WriteFile(directory / "model.safetensors", std::string(static_cast<size_t>(bytes - 8), 'x'));
    std::filesystem::last_write_time(
        directory / std::string(kManifestFileName),
        std::chrono::file_clock::from_sys(
            std::chrono::sys_time<std::chrono::seconds>(std::chrono::seconds(used_seconds))));
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path())) {
      const std::string name = entry.path().filename().string();
      if (entry.is_directory()) {
        names.push_back(name.size() == 32 ? name.substr(0, 1) : name);
      }
    }
    return names;
  }

  ScratchDirectory scratch_;
};

TEST_F(QuantizedCacheTest, IsThereOnlyIfItsDirectoryIs) {
  EXPECT_TRUE(absl::IsNotFound(QuantizedCache::Open(path().string() + "x", {}).status()));
  WriteFile(scratch_.path() / "file", "");
  EXPECT_FALSE(QuantizedCache::Open((scratch_.path() / "file").string(), {}).ok());
  EXPECT_TRUE(Open()->CheckWritable().ok());
}

TEST_F(QuantizedCacheTest, EvictsWhatWasLeastRecentlyUsedUntilItFits) {
  MakeEntry('a', 1000, 30);
  MakeEntry('b', 2000, 10);
  MakeEntry('c', 3000, 20);
  const auto cache = Open({.bytes = 10'000});
  EXPECT_EQ(cache->Measure().bytes, 6000);
  EXPECT_EQ(cache->Measure().entry_count, 3);
  const absl::StatusOr<CacheLock> lock = cache->Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();

  EXPECT_EQ(*cache->MakeRoom(*lock, 4000), 0);
  EXPECT_THAT(Names(), UnorderedElementsAre("a", "b", "c"));
  EXPECT_EQ(*cache->MakeRoom(*lock, 4001), 1);
  EXPECT_THAT(Names(), UnorderedElementsAre("a", "c"));
  EXPECT_EQ(*cache->MakeRoom(*lock, 9001), 2);
  EXPECT_THAT(Names(), UnorderedElementsAre());
}

TEST_F(QuantizedCacheTest, EvictsNothingForWhatCanNeverFit) {
  MakeEntry('a', 1000, 1);
  const auto cache = Open({.bytes = 10'000});
  const absl::StatusOr<CacheLock> lock = cache->Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();
  const absl::Status status = cache->MakeRoom(*lock, 10'001).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(DetailsOf(status).reason, "CACHE_FULL");
  EXPECT_THAT(std::string(status.message()), HasSubstr("10001 bytes"));
  EXPECT_THAT(Names(), UnorderedElementsAre("a"));
}

TEST_F(QuantizedCacheTest, TakesAShareOfTheDiskOrOfWhatIsSaid) {
  MakeEntry('a', 1000, 1);
  struct statvfs info = {};
  ASSERT_EQ(statvfs(path().c_str(), &info), 0);
  const auto free = static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
  const auto cache = Open({.bytes = {}, .disk_ratio = 0.5});
  const absl::StatusOr<CacheLock> lock = cache->Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();
  // Others write to this disk too, so a little less and a little more than half.
  EXPECT_TRUE(cache->MakeRoom(*lock, free / 20 * 9).ok());
  EXPECT_FALSE(cache->MakeRoom(*lock, free / 20 * 11).ok());
}

// Two loads of one process, or of two, are the same to a lock of a file.
TEST_F(QuantizedCacheTest, HasOneWriterAtATime) {
  const auto first = Open();
  const auto second = Open();
  {
    const absl::StatusOr<CacheLock> lock = first->Lock();
    ASSERT_TRUE(lock.ok()) << lock.status();
    EXPECT_TRUE(absl::IsUnavailable(second->Lock().status()));
    EXPECT_TRUE(absl::IsUnavailable(first->Lock().status()));
  }
  EXPECT_TRUE(second->Lock().ok());
}

TEST_F(QuantizedCacheTest, RemovesWhatDeadWritersLeftAndNothingElse) {
  const std::string mark(kLeftoverFileName);
  MakeEntry('a', 1000, 1);
  MakeEntry('b', 1000, 1);  // Of which an eviction has got thus far.
  std::filesystem::rename(path() / Name('b') / std::string(kManifestFileName),
                          path() / Name('b') / mark);
  for (const char* name : {".partial-0123abcd", ".partial-00000000", ".partial-00000001"}) {
    std::filesystem::create_directory(path() / (Name('d') + name));
  }
  // Killed at its work, at the end of it, and before it began.
  WriteFile(path() / (Name('d') + ".partial-0123abcd") / mark, "");
  WriteFile(path() / (Name('d') + ".partial-0123abcd") / "model.safetensors", "half of it");
  WriteFile(path() / (Name('d') + ".partial-00000000") / std::string(kManifestFileName), "");
  const std::string strange[] = {"mine", Name('c') + "x", "c.partial-00000000", "lost+found",
                                 Name('e') + ".partial-12345678x"};
  for (const std::string& name : strange) {
    std::filesystem::create_directory(path() / name);
    WriteFile(path() / name / mark, "");
  }
  const auto cache = Open();
  const absl::StatusOr<CacheLock> lock = cache->Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_EQ(cache->RemoveLeftovers(*lock), 4);
  EXPECT_THAT(Names(), UnorderedElementsAre("a", strange[0], strange[1], strange[2], strange[3],
                                            strange[4]));
  EXPECT_EQ(cache->RemoveLeftovers(*lock), 0);
}

// Others keep files under digests, too.
TEST_F(QuantizedCacheTest, RemovesNobodyElsesFilesWhateverTheirDirectoryIsCalled) {
  const std::string names[] = {Name('0'), Name('1') + ".partial-00000000"};
  for (const std::string& name : names) {
    std::filesystem::create_directories(path() / name / "photographs");
    WriteFile(path() / name / "photographs" / "of.children", "only copy");
    WriteFile(path() / name / "letter", "only copy");
  }
  const std::filesystem::path elsewhere = scratch_.path() / "elsewhere";
  std::filesystem::create_directory(elsewhere);
  WriteFile(elsewhere / std::string(kLeftoverFileName), "");
  std::filesystem::create_directory_symlink(elsewhere, path() / Name('2'));
  const auto cache = Open();
  const absl::StatusOr<CacheLock> lock = cache->Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_EQ(cache->RemoveLeftovers(*lock), 0);
  for (const std::string& name : names) {
    EXPECT_TRUE(std::filesystem::exists(path() / name / "photographs" / "of.children")) << name;
    EXPECT_TRUE(std::filesystem::exists(path() / name / "letter")) << name;
  }
  EXPECT_TRUE(std::filesystem::exists(elsewhere / std::string(kLeftoverFileName)));
}

class FoundEntryTest : public QuantizedCacheTest {
 protected:
  FoundEntryTest() {
    TinyLlama().Write(scratch_.path() / "source");
    checkpoint_ = *OpenForTest(scratch_.path() / "source");
    plan_ = PlanForTest(checkpoint_, kHostTraits);
    key_ = MakeCacheKey(checkpoint_, *plan_);
    NullObserver observer;
    const auto weights = LoadForTest(*device_, budget_, checkpoint_, plan_, observer);
    HandWrittenEntry(*device_, **weights, key_).Write(entry_path());
  }

  std::filesystem::path entry_path() const { return path() / key_.entry_name; }
  std::filesystem::path manifest_path() const {
    return entry_path() / std::string(kManifestFileName);
  }

  const std::unique_ptr<Device> device_ = OpenHostDevice(64_MiB);
  VramBudget budget_{64_MiB};
  Checkpoint checkpoint_;
  std::shared_ptr<const LoadPlan> plan_;
  CacheKey key_;
};

TEST_F(FoundEntryTest, IsMarkedAsUsed) {
  const auto cache = Open();
  const auto long_ago = std::filesystem::last_write_time(manifest_path()) - std::chrono::hours(1);
  std::filesystem::last_write_time(manifest_path(), long_ago);
  EXPECT_TRUE(absl::IsNotFound(cache->Find(Key('a'), *plan_).status()));
  EXPECT_EQ(std::filesystem::last_write_time(manifest_path()), long_ago);
  EXPECT_TRUE(cache->Find(key_, *plan_).ok());
  EXPECT_GT(std::filesystem::last_write_time(manifest_path()), long_ago + std::chrono::minutes(59));
}

TEST_F(FoundEntryTest, IsNotEvictedWhileItIsRead) {
  MakeEntry('a', 1000, 2'000'000'000);  // Used later.
  const auto cache = Open({.bytes = 1'000'000});
  const absl::StatusOr<CacheLock> lock = cache->Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();
  {
    const absl::StatusOr<HeldEntry> held = cache->Find(key_, *plan_);
    ASSERT_TRUE(held.ok()) << held.status();
    EXPECT_FALSE(cache->MakeRoom(*lock, 1'000'000).ok());
    EXPECT_TRUE(cache->Contains(Key('a'))) << "nor anything else in vain";
    EXPECT_EQ(*cache->MakeRoom(*lock, 999'500 - cache->Measure().bytes + 1000), 1);
    EXPECT_FALSE(cache->Contains(Key('a')));
    EXPECT_TRUE(cache->Contains(key_));
  }
  EXPECT_EQ(*cache->MakeRoom(*lock, 1'000'000), 1);
  EXPECT_FALSE(std::filesystem::exists(entry_path()));
  EXPECT_TRUE(absl::IsNotFound(cache->Find(key_, *plan_).status()));
}

TEST_F(FoundEntryTest, DoesNotWaitForAFifoInTheManifestsPlace) {
  const auto cache = Open();
  std::filesystem::remove(manifest_path());
  ASSERT_EQ(mkfifo(manifest_path().c_str(), 0600), 0);
  const absl::Status status = cache->Find(key_, *plan_).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(DetailsOf(status).reason, kCacheManifestBroken);
  EXPECT_FALSE(cache->Contains(key_));
  const absl::StatusOr<CacheLock> lock = cache->Lock();
  EXPECT_EQ(cache->Measure().entry_count, 0);
  EXPECT_TRUE(cache->MakeRoom(*lock, 1).ok());
}

TEST_F(FoundEntryTest, IsNoneOnceItIsDiscarded) {
  const auto cache = Open();
  OverwriteFile(manifest_path(), 0, "#");
  EXPECT_TRUE(absl::IsDataLoss(cache->Find(key_, *plan_).status()));
  EXPECT_TRUE(cache->Contains(key_));
  EXPECT_TRUE(cache->Discard(key_).ok());
  EXPECT_FALSE(cache->Contains(key_));
  EXPECT_TRUE(absl::IsNotFound(cache->Find(key_, *plan_).status()));
  EXPECT_EQ(cache->RemoveLeftovers(*cache->Lock()), 1);
  EXPECT_FALSE(std::filesystem::exists(entry_path()));
}

}  // namespace
}  // namespace nibble
