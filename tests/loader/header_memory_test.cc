// What reading a header takes of the host's memory, and what happens where there is none.

#include <new>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/checkpoint_index.h"
#include "loader/safetensors.h"
#include "tests/support/faulty_new.h"
#include "tests/support/loading.h"
#include "tests/support/memory_file.h"
#include "tests/support/tiny_checkpoint.h"
#include "tests/support/tiny_quantized.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(HeaderMemoryTest, IsAnErrorWhenThereIsNone) {
  const std::string json = absl::StrCat(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                                        std::string(kLargeAllocationBytes, ' '));
  const MemoryFile file("x.safetensors", SafetensorsFile(json, "d"));
  FailLargeAllocation(1);
  const auto header = ReadSafetensorsHeader("x.safetensors", file);
  EXPECT_TRUE(LargeAllocationHasFailed());
  EXPECT_EQ(header.status(),
            absl::ResourceExhaustedError(
                absl::StrCat("x.safetensors: no memory for a header of ", json.size(), " bytes")));
  EXPECT_TRUE(ReadSafetensorsHeader("x.safetensors", file).ok());
}

TEST(HeaderMemoryTest, IsNotAskedForBeyondTheFile) {
  std::string content(8, '\0');
  content[3] = 5;  // 80 MiB, within the format's limit.
  const MemoryFile file("x", content + "{}");
  FailLargeAllocation(0);
  EXPECT_FALSE(ReadSafetensorsHeader("x", file).ok());
  EXPECT_LT(LargestAllocationBytes(), kLargeAllocationBytes);
}

// Eight bytes for each would be four times the header, and for commas alone eight times.
TEST(HeaderMemoryTest, IsNotAskedForByAShapeWithoutEnd) {
  std::string ones = "1";
  for (size_t count = 1; count <= kSafetensorsDimensionsMax; ++count) {
    ones += ",1";
  }
  for (const std::string& shape : {ones, std::string(1'000'000, ',')}) {
    const std::string json =
        absl::StrCat(R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":[)", shape, "]}}");
    const MemoryFile file("x", SafetensorsFile(json, "d"));
    FailLargeAllocation(0);
    const auto header = ReadSafetensorsHeader("x", file);
    EXPECT_THAT(
        std::string(header.status().message()),
        AllOf(HasSubstr("x: tensor \"a\""), HasSubstr("expected at most 65536 dimensions")));
    EXPECT_EQ(LargestAllocationBytes(), json.size()) << "the header itself";
  }
}

TEST(HeaderMemoryTest, AsManyDimensionsAsMayBeAreRead) {
  std::string ones = "1";
  for (size_t count = 1; count < kSafetensorsDimensionsMax; ++count) {
    ones += ",1";
  }
  const std::string json =
      absl::StrCat(R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":[)", ones, "]}}");
  const auto header = ReadSafetensorsHeader("x", MemoryFile("x", SafetensorsFile(json, "d")));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->entries[0].shape.size(), kSafetensorsDimensionsMax);
}

// A file of empty tensors whose names are the numbers from `first` on.
std::string EmptyTensors(size_t first, size_t count) {
  std::string json = "{";
  for (size_t number = first; number < first + count; ++number) {
    absl::StrAppend(&json, number == first ? "\"" : ",\"", number,
                    R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})");
  }
  return SafetensorsFile(json + "}", "");
}

TEST(HeaderMemoryTest, IsNotTakenForMoreTensorsThanMayBe) {
  const auto header =
      ReadSafetensorsHeader("x", MemoryFile("x", EmptyTensors(0, kSafetensorsTensorsMax + 1)));
  EXPECT_THAT(std::string(header.status().message()),
              AllOf(HasSubstr("tensor \"1048576\""), HasSubstr("at most 1048576 tensors")));
}

TEST(HeaderMemoryTest, IsNotTakenForMoreTensorsInAllShardsThanMayBe) {
  constexpr size_t kHalf = kIndexTensorsMax / 2;
  const ScratchDirectory scratch;
  WriteFile(scratch.path() / "config.json", R"({"model_type":"llama"})");
  WriteFile(scratch.path() / "model-00001-of-00002.safetensors", EmptyTensors(0, kHalf));
  WriteFile(scratch.path() / "model-00002-of-00002.safetensors", EmptyTensors(kHalf, kHalf + 1));
  const absl::Status status = OpenForTest(scratch.path()).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("model-00002-of-00002.safetensors: tensor \"1048576\""),
                    HasSubstr("at most 1048576")));
}

// All but the memory that is not there must be given back, which ASan sees.
TEST(HeaderMemoryTest, MayBeMissingWhereverQuantizedTensorsAreMerged) {
  TinyCheckpoint tiny;
  for (int i = 0; i < 2000; ++i) {
    AddQuantized({.name = absl::StrCat("W", i), .shape = {4, 16}, .double_quantized = true}, tiny);
  }
  const ScratchDirectory scratch;
  tiny.Write(scratch.path());
  int64_t number = 0;
  for (bool has_failed = true; has_failed;) {
    FailLargeAllocation(++number);
    absl::Status status;
    try {
      status = OpenForTest(scratch.path()).status();
    } catch (const std::bad_alloc&) {
      status = absl::ResourceExhaustedError("no memory");
    }
    has_failed = LargeAllocationHasFailed();
    EXPECT_EQ(absl::IsResourceExhausted(status), has_failed) << status;
  }
  EXPECT_GT(number, 10) << "the header, tensors, groups, states and their tables";
}

}  // namespace
}  // namespace nibble
