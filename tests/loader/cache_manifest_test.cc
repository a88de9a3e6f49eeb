#include "loader/cache_manifest.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/checksum.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

const std::string kDigest(32, 'a');

// A manifest with everything in it, written out by hand.
const std::string kJson = absl::StrCat(
    R"({"files":[{"name":"a.safetensors","bytes":200000,"rest":")", kDigest,
    R"("},{"name":"config.json","bytes":17,"rest":")", kDigest,
    R"("}],"tensors":[{"name":"kept \"1\"","parts":[{"data":[0,0,65537]}]},)",
    R"({"name":"empty","parts":[{}]},)",
    R"({"name":"fused","parts":[{"data":[0,65537,32],"scales":[0,65569,2],"scale_maxima":[0,65571,4],)",
    R"("scale_mean":1065353216},{"data":[0,70000,32]}]}]})");
constexpr size_t kPieces = 2 + 1 + 1 + 1 + 1;

// The file of such a JSON, with `piece_count` checksums and a right checksum of itself.
std::string FileOf(absl::string_view json, size_t piece_count = kPieces) {
  std::string bytes = absl::StrCat("key\n", json, "\n");
  for (uint64_t piece = 1; piece <= piece_count; ++piece) {
    bytes.append(reinterpret_cast<const char*>(&piece), sizeof(piece));
  }
  const uint64_t checksum = Checksum(std::as_bytes(std::span<const char>(bytes)));
  return bytes.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
}

TEST(CacheManifestTest, ReadsWhatTheFormatSays) {
  const absl::StatusOr<CacheManifest> manifest = ParseCacheManifest(FileOf(kJson));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->key, "key");
  ASSERT_EQ(manifest->files.size(), 2);
  EXPECT_EQ(manifest->files[0], (CacheManifest::File{"a.safetensors", 200'000, kDigest}));
  ASSERT_EQ(manifest->tensors.size(), 3);
  EXPECT_EQ(manifest->tensors[0].name, "kept \"1\"");
  EXPECT_EQ(manifest->tensors[0].parts[0].planes[0].bytes, 65'537);
  EXPECT_EQ(manifest->tensors[1].parts[0].planes[0].bytes, 0);
  const CacheManifest::Part& part = manifest->tensors[2].parts[0];
  EXPECT_EQ(part.planes[1].offset, 65'569);
  EXPECT_EQ(part.planes[2].bytes, 4);
  EXPECT_EQ(part.scale_mean, 1.0F);
  EXPECT_EQ(manifest->tensors[2].parts[1].scale_mean, 0.0F);
  EXPECT_EQ(manifest->checksums, (std::vector<uint64_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(WriteCacheManifest(*manifest), FileOf(kJson)) << "there is one way to write it";
}

TEST(CacheManifestTest, RefusesWhateverIsNotThat) {
  const std::pair<const char*, const char*> changes[] = {
      {R"({"files":[)", R"({"files":[],"tensors":[],"files":[)"},
      {R"({"files":[)", R"({"version":1,"files":[)"},
      {R"("name":"config.json")", R"("name":"a.safetensors")"},
      {R"("name":"config.json")", R"("name":"nibble-cache-manifest")"},
      {R"("name":"config.json")", R"("name":"../config.json")"},
      {R"("name":"config.json")", R"("name":"")"},
      {R"("bytes":17)", R"("bytes":-17)"},
      {R"("bytes":17)", R"("bytes":1e3)"},
      {R"("bytes":17)", R"("bytes":18446744073709551615)"},
      {R"("bytes":200000)", R"("bytes":65573)"},  // One byte less than the ranges need.
      {R"("data":[0,0,65537])", R"("data":[0,0,65538])"},
      {R"("data":[0,0,65537])", R"("data":[2,0,65537])"},
      {R"("data":[0,0,65537])", R"("data":[0,0])"},
      {R"("data":[0,0,65537])", R"("data":[0,0,65537,1])"},
      {R"("data":[0,0,65537])", R"("data":[0,0,0])"},
      {R"("data":[0,70000,32])", R"("data":[0,1152921504606846976,32])"},
      {R"("data":[0,70000,32])", R"("data":[0,32,70000])"},
      {R"("data":[0,70000,32])", R"("scales":[0,70000,32],"data":[0,80000,32])"},
      {R"("data":[0,70000,32])", R"("data":[0,70000,32],"data":[0,80000,32])"},
      {R"("data":[0,70000,32])", R"("mean":[0,70000,32])"},
      {R"("scale_mean":1065353216)", R"("scale_mean":1.0)"},
      {R"("scale_mean":1065353216)", R"("scale_mean":0)"},
      {R"("scale_mean":1065353216)", R"("scale_mean":4294967296)"},
  };
  for (const auto& [from, to] : changes) {
    ASSERT_THAT(kJson, HasSubstr(from));
    const std::string changed = absl::StrReplaceAll(kJson, {{from, to}});
    for (size_t pieces = kPieces - 1; pieces <= kPieces + 1; ++pieces) {
      EXPECT_TRUE(absl::IsDataLoss(ParseCacheManifest(FileOf(changed, pieces)).status()))
          << to << " with " << pieces << " checksums";
    }
  }
}

TEST(CacheManifestTest, RefusesAnotherNumberOfChecksums) {
  for (const size_t pieces : {size_t{0}, kPieces - 1, kPieces + 1}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseCacheManifest(FileOf(kJson, pieces)).status())) << pieces;
  }
}

TEST(CacheManifestTest, RefusesEveryTruncationAndEveryFlippedBit) {
  const std::string file = FileOf(kJson);
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseCacheManifest(absl::string_view(file).substr(0, size)).ok()) << size;
    std::string flipped = file;
    flipped[size] = static_cast<char>(flipped[size] ^ (1 << size % 8));
    EXPECT_FALSE(ParseCacheManifest(flipped).ok()) << size;
  }
}

TEST(CacheManifestTest, RefusesTooManyPartsWithoutKeepingThem) {
  std::string json = R"({"files":[],"tensors":[{"name":"a","parts":[)";
  for (int part = 0; part <= 1 << 20; ++part) {
    absl::StrAppend(&json, part == 0 ? "" : ",", "{}");
  }
  json += "]}]}";
  const absl::Status status = ParseCacheManifest(FileOf(json, 0)).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("1048576 parts"));
}

}  // namespace
}  // namespace nibble
