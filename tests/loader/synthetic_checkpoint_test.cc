#include "loader/synthetic_checkpoint.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/error_details.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr auto kGoOn = [](int64_t, int64_t) { return true; };

absl::Status Synth(const std::string& shape, const std::filesystem::path& directory,
                   uint64_t seed = 0) {
  return WriteSyntheticCheckpoint(shape, directory.string(), {seed, false}, kGoOn);
}

std::vector<std::string> FileNames(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(SyntheticCheckpointTest, WritesACheckpointThatLoads) {
  ScratchDirectory scratch;
  const auto directory = scratch.path() / "made" / "tiny";
  ASSERT_TRUE(Synth("llama-tiny", directory).ok());
  EXPECT_THAT(FileNames(directory),
              UnorderedElementsAre("config.json", "model.safetensors", "tokenizer.json",
                                   "tokenizer_config.json"));
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(directory);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->warnings, IsEmpty());
  const auto plan = PlanForTest(*checkpoint, kHostTraits);
  // H 256, I 704, L 4, heads 8/4 of 32: q and o 256 x 256, k and v 128 x 256, three of 704 x 256.
  EXPECT_EQ(plan->quantized_elements, 4 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 704 * 256));
  EXPECT_EQ(plan->loaded_elements - plan->quantized_elements, 2 * 2048 * 256 + 9 * 256);
  const std::unique_ptr<Device> device = OpenHostDevice(plan->peak_bytes());
  VramBudget budget(plan->peak_bytes());
  NullObserver observer;
  const auto weights = LoadForTest(*device, budget, *checkpoint, plan, observer);
  ASSERT_TRUE(weights.ok()) << weights.status();
}

TEST(SyntheticCheckpointTest, GivesEqualFilesForEqualSeedsAndOthersForOthers) {
  ScratchDirectory scratch;
  ASSERT_TRUE(Synth("llama-tiny", scratch.path() / "a", 7).ok());
  ASSERT_TRUE(Synth("llama-tiny", scratch.path() / "b", 7).ok());
  ASSERT_TRUE(Synth("llama-tiny", scratch.path() / "c", 8).ok());
  const auto data = [&scratch](const char* name) {
    return ReadFile(scratch.path() / name / "model.safetensors");
  };
  EXPECT_TRUE(data("a") == data("b"));
  EXPECT_EQ(data("a").size(), data("c").size());
  EXPECT_FALSE(data("a") == data("c"));
}

TEST(SyntheticCheckpointTest, ValuesLookLikeWeights) {
  ScratchDirectory scratch;
  ASSERT_TRUE(Synth("llama-tiny", scratch.path() / "a").ok());
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch.path() / "a");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::string file = ReadFile(scratch.path() / "a" / "model.safetensors");
  for (const CheckpointTensor& tensor : checkpoint->tensors) {
    const auto* const elements =
        reinterpret_cast<const std::byte*>(file.data()) + tensor.file_offset;
    const int64_t count = tensor.bytes / 2;
    double sum = 0;
    double squares = 0;
    for (int64_t index = 0; index < count; ++index) {
      const double value = LoadElement(FloatType::kBf16, elements, index);
      sum += value;
      squares += value * value;
    }
    const double mean = sum / static_cast<double>(count);
    const double deviation = std::sqrt(squares / static_cast<double>(count) - mean * mean);
    // Of n values with deviation 0.02 the mean is off by 0.02 / sqrt(n); five of those.
    const double expected = tensor.shape.size() == 1 ? 1 : 0;
    EXPECT_NEAR(mean, expected, 5 * 0.02 / std::sqrt(static_cast<double>(count))) << tensor.name;
    // The deviation of n values is off by 0.02 / sqrt(2 n); five of those, and what rounding
    // values near 1 to steps of 1 / 128 adds.
    EXPECT_NEAR(deviation, 0.02, 5 * 0.02 / std::sqrt(2.0 * static_cast<double>(count)) + 2e-4)
        << tensor.name;
  }
}

TEST(SyntheticCheckpointTest, WritesATokenizerWithEveryIdOfTheVocabulary) {
  ScratchDirectory scratch;
  ASSERT_TRUE(Synth("llama-tiny", scratch.path() / "a").ok());
  const auto tokenizer = nlohmann::json::parse(ReadFile(scratch.path() / "a" / "tokenizer.json"));
  const auto& vocabulary = tokenizer.at("model").at("vocab");
  EXPECT_EQ(vocabulary.size(), 2048);
  std::set<int64_t> ids;
  for (const auto& [token, id] : vocabulary.items()) {
    ids.insert(id.get<int64_t>());
  }
  EXPECT_EQ(ids.size(), 2048);
  EXPECT_EQ(*ids.rbegin(), 2047);
  // Facts of byte-level BPE: space and newline are shown as U+0120 and U+010A.
  EXPECT_EQ(vocabulary.at("A"), 'A');
  EXPECT_EQ(vocabulary.at("\u0120"), ' ');
  EXPECT_EQ(vocabulary.at("\u010a"), '\n');
  EXPECT_EQ(tokenizer.at("added_tokens").at(0).at("id"), 256);
}

TEST(SyntheticCheckpointTest, SparseFilesTakeNoDiskSpace) {
  ScratchDirectory scratch;
  const auto directory = scratch.path() / "sparse";
  ASSERT_TRUE(WriteSyntheticCheckpoint("llama-1b", directory.string(), {0, true}, kGoOn).ok());
  struct stat info = {};
  ASSERT_EQ(stat((directory / "model.safetensors").c_str(), &info), 0);
  EXPECT_GT(info.st_size, 2'000'000'000);
  EXPECT_LT(info.st_blocks * 512, 1'000'000);
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(directory);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
}

TEST(SyntheticCheckpointTest, RefusesUnknownShapesAndNamesTheKnown) {
  ScratchDirectory scratch;
  const absl::Status status = Synth("llama-2b", scratch.path() / "a");
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("llama-tiny, llama-1b"));
  EXPECT_FALSE(std::filesystem::exists(scratch.path() / "a"));
}

TEST(SyntheticCheckpointTest, LeavesADirectoryThatIsInUseAlone) {
  ScratchDirectory scratch;
  WriteFile(scratch.path() / "config.json", "mine");
  EXPECT_TRUE(absl::IsAlreadyExists(Synth("llama-tiny", scratch.path())));
  EXPECT_EQ(ReadFile(scratch.path() / "config.json"), "mine");
  EXPECT_EQ(FileNames(scratch.path()).size(), 1);
}

TEST(SyntheticCheckpointTest, LeavesNothingBehindWhenStopped) {
  ScratchDirectory scratch;
  const auto directory = scratch.path() / "stopped";
  int64_t calls = 0;
  const absl::Status status = WriteSyntheticCheckpoint(
      "llama-tiny", directory.string(), {}, [&calls](int64_t, int64_t) { return ++calls < 5; });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_FALSE(std::filesystem::exists(directory));
}

TEST(SyntheticCheckpointTest, LeavesNoneOfTheDirectoriesAboveBehindWhenStopped) {
  ScratchDirectory scratch;
  std::filesystem::create_directory(scratch.path() / "there");
  const auto stop = [](int64_t, int64_t) { return false; };
  for (const char* const path : {"a/b/c", "a/b/c/", "there/b//c", "there/./b"}) {
    const std::string directory = (scratch.path() / path).string();
    EXPECT_TRUE(absl::IsCancelled(WriteSyntheticCheckpoint("llama-tiny", directory, {}, stop)));
    EXPECT_THAT(FileNames(scratch.path()), ElementsAre("there")) << path;
    EXPECT_THAT(FileNames(scratch.path() / "there"), IsEmpty()) << path;
  }
  // What is in the way of the third directory takes the first two with it.
  WriteFile(scratch.path() / "there/file", "mine");
  EXPECT_FALSE(Synth("llama-tiny", scratch.path() / "there/file/x").ok());
  EXPECT_FALSE(Synth("llama-tiny", scratch.path() / "new/../there/file/x").ok());
  EXPECT_THAT(FileNames(scratch.path()), ElementsAre("there"));
  EXPECT_EQ(ReadFile(scratch.path() / "there/file"), "mine");
}

TEST(SyntheticCheckpointTest, LeavesNothingBehindWhenAWriteFails) {
  ScratchDirectory scratch;
  for (const bool sparse : {false, true}) {
    const FileSizeLimit limit(3'000'000);
    const absl::Status status = WriteSyntheticCheckpoint(
        "llama-tiny", (scratch.path() / "full").string(), {0, sparse}, kGoOn);
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
    EXPECT_EQ(DetailsOf(status).reason, "DISK_FULL");
    EXPECT_THAT(FileNames(scratch.path()), IsEmpty());
  }
}

TEST(SyntheticCheckpointTest, RefusesADiskThatIsTooSmallBeforeWriting) {
  ScratchDirectory scratch;
  if (mount("none", scratch.path().c_str(), "tmpfs", 0, "size=4m") != 0) {
    GTEST_SKIP() << "needs the right to mount a tmpfs";
  }
  const absl::Status status = Synth("llama-tiny", scratch.path() / "full");
  const std::vector<std::string> left = FileNames(scratch.path());
  umount(scratch.path().c_str());
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("bytes of disk"));
  EXPECT_THAT(left, IsEmpty());
}

}  // namespace
}  // namespace nibble
