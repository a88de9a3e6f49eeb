#include "loader/safetensors.h"

#include <cstring>
#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/memory_file.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::StatusOr<SafetensorsHeader> Read(const std::string& content) {
  return ReadSafetensorsHeader("x.safetensors", MemoryFile("x.safetensors", content));
}

// A file of one U8 tensor "a" of 4 bytes, described by `entry`.
absl::StatusOr<SafetensorsHeader> ReadEntry(absl::string_view entry) {
  return Read(SafetensorsFile(absl::StrCat("{\"a\":", entry, "}"), "abcd"));
}

TEST(SafetensorsTest, GivesTheVerdictsOfTheOfficialReader) {
  const std::filesystem::path directory = std::filesystem::path(NIBBLE_TEST_DATA) / "safetensors";
  // Where we are stricter on purpose, see safetensors.h.
  const std::set<std::string> stricter = {"duplicate_tensor", "entry_array", "metadata_null"};
  const auto cases = nlohmann::json::parse(ReadFile(directory / "cases.json")).at("cases");
  for (const auto& [name, expected] : cases.items()) {
    const std::string file_name = name + ".safetensors";
    const auto header =
        ReadSafetensorsHeader(file_name, MemoryFile(file_name, ReadFile(directory / file_name)));
    const bool accepted = expected.at("accepted").get<bool>() && !stricter.contains(name);
    ASSERT_EQ(header.ok(), accepted) << name << ": " << header.status();
    if (accepted) {
      EXPECT_EQ(header->entries.size(), expected.at("tensors").get<size_t>()) << name;
    } else {
      EXPECT_EQ(header.status().code(), absl::StatusCode::kDataLoss) << name;
      EXPECT_TRUE(absl::StartsWith(header.status().message(), file_name + ": ")) << name;
    }
  }
  EXPECT_EQ(cases.size(), 94u);
}

TEST(SafetensorsTest, GivesNameDtypeShapeAndPlaceInTheFile) {
  const absl::string_view json =
      R"({"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},)"
      R"("a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"__metadata__":{"k":"v"}})";
  const auto header = Read(SafetensorsFile(json, std::string(16, 'x')));
  ASSERT_TRUE(header.ok()) << header.status();
  const auto data_begin = static_cast<int64_t>(8 + json.size());
  ASSERT_EQ(header->entries.size(), 2u);
  const SafetensorsEntry& first = header->entries[0];
  EXPECT_EQ(first.name, "a");
  EXPECT_EQ(first.dtype, Dtype::kBf16);
  EXPECT_EQ(first.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(first.begin_bytes, data_begin);
  EXPECT_EQ(first.bytes, 12);
  EXPECT_EQ(header->entries[1].begin_bytes, data_begin + 12);
  EXPECT_EQ(header->metadata, (std::vector<std::pair<std::string, std::string>>{{"k", "v"}}));
}

TEST(SafetensorsTest, NamesFileTensorExpectedAndFound) {
  const auto hole = Read(SafetensorsFile(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                         R"("b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
                                         "abcd"));
  EXPECT_EQ(hole.status().message(),
            "x.safetensors: tensor \"b\": expected its data to begin at 2, found 3: a hole");
  const auto size = ReadEntry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[0,4]})");
  EXPECT_EQ(size.status().message(),
            "x.safetensors: tensor \"a\": expected 24 bytes for F32 [2, 3], found 4");
  const auto dtype = ReadEntry(R"({"dtype":"Q4","shape":[4],"data_offsets":[0,4]})");
  EXPECT_THAT(dtype.status().message(),
              AllOf(HasSubstr("x.safetensors: tensor \"a\""), HasSubstr("found \"Q4\"")));
}

TEST(SafetensorsTest, NamesTheFirstTensorThatATruncatedFileLacks) {
  const std::string json = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                           R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},)"
                           R"("c":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}})";
  EXPECT_EQ(Read(SafetensorsFile(json, "abcdef")).status().message(),
            "x.safetensors: tensor \"b\": truncated: expected its data to end at 8, found 6 bytes "
            "of data in the file");
}

TEST(SafetensorsTest, RefusesHeadersOverTheLimitBeforeTakingMemory) {
  // A sparse file could really be that large; only its length counts.
  for (const uint64_t header_bytes : {uint64_t{100'000'001}, uint64_t{1} << 63, UINT64_MAX}) {
    std::string word(8, '\0');
    std::memcpy(word.data(), &header_bytes, 8);
    const auto header = ReadSafetensorsHeader("x", MemoryFile("x", word, int64_t{1} << 40));
    EXPECT_THAT(header.status().message(), HasSubstr("at most 100000000 bytes"));
  }
}

TEST(SafetensorsTest, RefusesProductsThatOverflowOnTheWay) {
  for (const char* shape : {"[4294967296,4294967296]", "[9223372036854775807,2]",
                            "[2305843009213693952]", "[4294967296,4294967296,0]"}) {
    const auto header =
        ReadEntry(absl::StrCat(R"({"dtype":"U8","data_offsets":[0,4],"shape":)", shape, "}"));
    EXPECT_THAT(header.status().message(), HasSubstr("fewer than 2^64 bits")) << shape;
  }
}

TEST(SafetensorsTest, AllowsUnknownFieldsAsDeepAsSerdeDoes) {
  const auto nested = [](int depth) {
    return absl::StrCat(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":)",
                        std::string(depth, '['), std::string(depth, ']'), "}");
  };
  EXPECT_TRUE(ReadEntry(nested(125)).ok());  // With the header and the entry: 127.
  EXPECT_FALSE(ReadEntry(nested(126)).ok());
  EXPECT_TRUE(
      ReadEntry(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1.5,"x":[{}]})").ok());
}

TEST(SafetensorsTest, RefusesNumbersThatAreNotPlainIntegers) {
  for (const char* shape : {"[4.0]", "[4e0]", "[-4]", "[-0,4]", "[\"4\"]", "[null]", "[[4]]",
                            "[9223372036854775808,0]", "4", "{}"}) {
    EXPECT_FALSE(
        ReadEntry(absl::StrCat(R"({"dtype":"U8","data_offsets":[0,4],"shape":)", shape, "}")).ok())
        << shape;
  }
}

TEST(SafetensorsTest, KeepsTheLastOfEqualMetadataKeysAsTheOfficialReaderDoes) {
  const auto header = Read(SafetensorsFile(R"({"__metadata__":{"k":"1","j":"2","k":"3"}})", ""));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->metadata,
            (std::vector<std::pair<std::string, std::string>>{{"j", "2"}, {"k", "3"}}));
}

TEST(SafetensorsTest, EscapesNamesInMessages) {
  const auto header = Read(SafetensorsFile(
      R"({"a\u001b[31m\n":{"dtype":"U8","shape":[5],"data_offsets":[0,4]}})", "abcd"));
  EXPECT_THAT(header.status().message(), HasSubstr(R"("a\x1b[31m\x0a")"));
}

TEST(SafetensorsTest, ReadsHundredsOfThousandsOfTensors) {
  std::string json = "{";
  for (int i = 0; i < 300'000; ++i) {
    absl::StrAppend(&json, i == 0 ? "" : ",", "\"t", i,
                    R"(":{"dtype":"U8","shape":[1,0],"data_offsets":[0,0]})");
  }
  const auto header = Read(SafetensorsFile(absl::StrCat(json, "}"), ""));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->entries.size(), 300'000u);
  EXPECT_EQ(header->entries.back().name, "t299999");
}

TEST(SafetensorsTest, PassesReadErrorsOn) {
  const std::string content =
      ReadFile(std::filesystem::path(NIBBLE_TEST_DATA) / "safetensors/plain.safetensors");
  // Grows to its full size only after it was measured: both reads must notice.
  for (const size_t bytes : {size_t{4}, size_t{20}}) {
    const auto header = ReadSafetensorsHeader(
        "x", MemoryFile("x", content.substr(0, bytes), static_cast<int64_t>(content.size())));
    EXPECT_EQ(header.status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(SafetensorsTest, WritesWhatTheOfficialWriterWrites) {
  const std::vector<SafetensorsEntry> entries = {
      {.name = "a\"\\\n", .dtype = Dtype::kF32, .shape = {2, 1}, .bytes = 8},
      {.name = "b", .dtype = Dtype::kU8, .shape = {}, .bytes = 1}};
  const std::string header = WriteSafetensorsHeader(entries, {{"format", "pt"}});
  const std::string json = R"({"__metadata__":{"format":"pt"},)"
                           R"("a\"\\\u000a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                           R"("b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}})";
  const std::string padding((8 - json.size() % 8) % 8, ' ');
  EXPECT_EQ(header, SafetensorsFile(json + padding, ""));
  EXPECT_EQ(header.size() % 8, 0u);
}

TEST(SafetensorsTest, ReadsWhatItWrites) {
  std::vector<SafetensorsEntry> entries = {
      {.name = "\x01\x7F \xC3\xA9 \"", .dtype = Dtype::kF8E4M3, .shape = {3, 0}, .bytes = 0},
      {.name = "", .dtype = Dtype::kF4, .shape = {4}, .bytes = 2},
      {.name = "z", .dtype = Dtype::kU64, .shape = {2}, .bytes = 16}};
  const auto header = Read(absl::StrCat(WriteSafetensorsHeader(entries, {}), std::string(18, 'x')));
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->entries.size(), entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(header->entries[i].name, entries[i].name);
    EXPECT_EQ(header->entries[i].dtype, entries[i].dtype);
    EXPECT_EQ(header->entries[i].shape, entries[i].shape);
    EXPECT_EQ(header->entries[i].bytes, entries[i].bytes);
  }
}

}  // namespace
}  // namespace nibble
