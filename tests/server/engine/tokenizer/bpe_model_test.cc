#include "server/engine/tokenizer/bpe_model.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;
using Ids = std::vector<uint32_t>;

absl::StatusOr<BpeModel> MakeModel(const std::string& json) {
  auto file = ParseBpeFile(json);
  return file.ok() ? BpeModel::Create(*std::move(file)) : file.status();
}

std::string ErrorOf(const std::string& json) { return MakeModel(json).status().ToString(); }

Ids Encode(const std::string& json, absl::string_view piece,
           const std::vector<bool>& reserved = {}) {
  const auto model = MakeModel(json);
  EXPECT_TRUE(model.ok()) << model.status();
  BpeScratch scratch;
  Ids ids;
  if (model.ok()) {
    EXPECT_TRUE(model->Encode(piece, reserved, scratch, ids).ok());
  }
  return ids;
}

constexpr char kSmall[] = R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4,
    "abc": 5, "aa": 6}, "merges": [["b", "c"], ["a", "b"], ["a", "bc"], ["a", "a"]]})";

TEST(BpeModelTest, MergesTheLowestRankFirst) {
  EXPECT_THAT(Encode(kSmall, "abc"), ElementsAre(5));  // b c before a b.
  EXPECT_THAT(Encode(kSmall, "abab"), ElementsAre(3, 3));
}

TEST(BpeModelTest, MergesTheLeftmostOfEqualRanks) {
  EXPECT_THAT(Encode(kSmall, "aaa"), ElementsAre(6, 0));
}

TEST(BpeModelTest, ReadsMergesInBothForms) {
  const std::string old_form =
      R"({"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["#version: 0.2", "a b"]})";
  EXPECT_THAT(Encode(old_form, "ab"), ElementsAre(2));
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 0}, "merges": ["a"]})"), HasSubstr("one space"));
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 0}, "merges": ["a a a"]})"), HasSubstr("one space"));
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 0}, "merges": [["a"]]})"), HasSubstr("two strings"));
}

TEST(BpeModelTest, TakesAWholePieceWhereMergesAreIgnored) {
  const std::string json =
      R"({"vocab": {"a": 0, "b": 1, "aba": 2}, "merges": [], "ignore_merges": true})";
  EXPECT_THAT(Encode(json, "aba"), ElementsAre(2));
  EXPECT_THAT(Encode(json, "abaa"), ElementsAre(0, 1, 0, 0));
}

TEST(BpeModelTest, MakesNoReservedTokenOfText) {
  const std::vector<bool> reserved = {false, false, false, true, false, false, false};
  EXPECT_THAT(Encode(kSmall, "abab", reserved), ElementsAre(0, 1, 0, 1));
  const std::string ignoring =
      R"({"vocab": {"a": 0, "aa": 1}, "merges": [], "ignore_merges": true})";
  EXPECT_THAT(Encode(ignoring, "aa", {false, true}), ElementsAre(0, 0));
}

TEST(BpeModelTest, LeavesOutUnknownCharactersWithoutAnUnknownToken) {
  EXPECT_THAT(Encode(kSmall, "axb"), ElementsAre(3));
  EXPECT_THAT(Encode(kSmall, "éé"), IsEmpty());
}

TEST(BpeModelTest, FusesUnknownsOnlyWhenTold) {
  const std::string json = R"({"vocab": {"a": 0, "?": 1}, "merges": [], "unk_token": "?",
      "fuse_unk": )";
  EXPECT_THAT(Encode(json + "true}", "xya"), ElementsAre(1, 0));
  EXPECT_THAT(Encode(json + "false}", "xya"), ElementsAre(1, 1, 0));
}

TEST(BpeModelTest, FallsBackToBytesIfItHasThemAll) {
  const std::string json = R"({"vocab": {"<0xC3>": 0, "<0xA9>": 1, "?": 2, "<0x61>": 3},
      "merges": [], "unk_token": "?", "byte_fallback": true})";
  EXPECT_THAT(Encode(json, "éa"), ElementsAre(0, 1, 3));
  EXPECT_THAT(Encode(json, "ê"), ElementsAre(2));  // 0xAA is missing.
}

TEST(BpeModelTest, ReportsAnUnknownTokenThatIsUnknown) {
  const auto model = MakeModel(R"({"vocab": {"a": 0}, "merges": [], "unk_token": "<zz>"})");
  ASSERT_TRUE(model.ok());
  BpeScratch scratch;
  Ids ids;
  EXPECT_TRUE(model->Encode("a", {}, scratch, ids).ok());
  const absl::Status status = model->Encode("x", {}, scratch, ids);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("<zz>"));
}

TEST(BpeModelTest, DecoratesCharactersWithinAndAtTheEnd) {
  const std::string json = R"({"vocab": {"a": 0, "##b": 1, "##c</w>": 2, "ab": 3, "abc</w>": 4},
      "merges": [["a", "##b"], ["ab", "##c</w>"]], "continuing_subword_prefix": "##",
      "end_of_word_suffix": "</w>"})";
  EXPECT_THAT(Encode(json, "abc"), ElementsAre(4));
}

TEST(BpeModelTest, RefusesMergesOutsideItsVocabulary) {
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 0}, "merges": [["a", "z"]]})"), HasSubstr("\"z\""));
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 0}, "merges": [["a", "a"]]})"), HasSubstr("\"aa\""));
}

TEST(BpeModelTest, RefusesAnAmbiguousVocabulary) {
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 0, "b": 0}, "merges": []})"), HasSubstr("id 0"));
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 0, "a": 1}, "merges": []})"), HasSubstr("twice"));
  EXPECT_THAT(ErrorOf(R"({"vocab": {}, "vocab": {}, "merges": []})"), HasSubstr("twice"));
}

TEST(BpeModelTest, RefusesIdsThatWouldFillTheMemory) {
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 4194304}, "merges": []})"), HasSubstr("4194304"));
  EXPECT_TRUE(MakeModel(R"({"vocab": {"a": 4194303}, "merges": []})").ok());
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": -1}, "merges": []})"), HasSubstr("DATA_LOSS"));
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 1.5}, "merges": []})"), HasSubstr("DATA_LOSS"));
}

TEST(BpeModelTest, NamesModelsThatItDoesNotKnow) {
  for (const char* const type : {"Unigram", "WordPiece", "WordLevel"}) {
    const std::string error = ErrorOf(Json{{"type", type}, {"vocab", Json::array()}}.dump());
    EXPECT_THAT(error, HasSubstr("UNIMPLEMENTED"));
    EXPECT_THAT(error, HasSubstr(type));
  }
  EXPECT_THAT(ErrorOf(R"({"vocab": {"a": 0}, "merges": [], "dropout": 0.1})"),
              HasSubstr("UNIMPLEMENTED: dropout"));
}

}  // namespace
}  // namespace nibble
