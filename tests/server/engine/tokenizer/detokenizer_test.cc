#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/printable.h"
#include "tests/server/engine/tokenizer/tokenizer_test_data.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;

// What each token adds, and at last what Finish gives.
std::vector<std::string> Pieces(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  Detokenizer detokenizer(tokenizer, skip_special);
  std::vector<std::string> pieces;
  for (const uint32_t id : ids) {
    pieces.push_back(detokenizer.Append(id));
  }
  pieces.push_back(detokenizer.Finish());
  return pieces;
}

std::string Joined(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) {
    text += piece;
  }
  return text;
}

class DetokenizerTest : public testing::TestWithParam<const char*> {};

TEST_P(DetokenizerTest, JoinsToTheLibrarysTextInWholeCharacters) {
  const auto tokenizer = ParseGolden(GetParam());
  for (const Json& item : ReadGoldenCases(GetParam())) {
    const bool by_text = item.contains("text");
    const Ids ids = item[by_text ? "ids_without_special" : "decode_ids"].get<Ids>();
    for (const bool skip_special : {false, true}) {
      const std::vector<std::string> pieces = Pieces(*tokenizer, ids, skip_special);
      EXPECT_EQ(Joined(pieces), item[skip_special ? "decoded_skip_special" : "decoded"]);
      for (const std::string& piece : pieces) {
        EXPECT_TRUE(IsUtf8(piece));
      }
    }
  }
}

// Decode itself is held to the library's results; here the same ids go through it in one piece.
TEST_P(DetokenizerTest, JoinsToDecodeForRandomIds) {
  const auto tokenizer = ParseGolden(GetParam());
  std::mt19937 random(20261124);
  for (int round = 0; round < 300; ++round) {
    Ids ids(random() % 24);
    // Every other round low ids: bytes, of which runs are long and broken.
    const uint32_t ids_end = round % 2 == 0 ? tokenizer->vocabulary_size() + 2 : 300;
    for (uint32_t& id : ids) {
      id = static_cast<uint32_t>(random() % ids_end);
    }
    for (const bool skip_special : {false, true}) {
      const std::vector<std::string> pieces = Pieces(*tokenizer, ids, skip_special);
      EXPECT_EQ(Joined(pieces), tokenizer->Decode(ids, skip_special));
      for (const std::string& piece : pieces) {
        EXPECT_TRUE(IsUtf8(piece)) << Json(ids);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryKind, DetokenizerTest, testing::ValuesIn(kGoldenTokenizers),
                         [](const auto& kind) { return std::string(kind.param); });

Ids IdsOf(const Tokenizer& tokenizer, const std::vector<std::string>& tokens) {
  Ids ids;
  for (const std::string& token : tokens) {
    ids.push_back(tokenizer.IdOf(token).value());
  }
  return ids;
}

TEST(DetokenizerTest, HoldsHalfACharacterBack) {
  Json file = SmallFile({"a", "ðŁ", "Ļ", "Ĥ"});
  file["decoder"] = {{"type", "ByteLevel"}};
  const auto tokenizer = Parse(file.dump());
  EXPECT_THAT(Pieces(*tokenizer, IdsOf(*tokenizer, {"a", "ðŁ", "Ļ", "Ĥ", "a"}), false),
              ElementsAre("a", "", "", "🙂", "a", ""));
  EXPECT_THAT(Pieces(*tokenizer, IdsOf(*tokenizer, {"ðŁ", "a"}), false),
              ElementsAre("", "\uFFFDa", ""));
  EXPECT_THAT(Pieces(*tokenizer, IdsOf(*tokenizer, {"ðŁ"}), false), ElementsAre("", "\uFFFD"));
}

Json Llama2Decoder() {
  return Json::parse(R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
      {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
}

TEST(DetokenizerTest, HoldsARunOfByteTokensBackUntilItIsDecided) {
  Json file = SmallFile({"a", "▁b", "<0xC3>", "<0xA9>", "<0xFF>"});
  file["decoder"] = Llama2Decoder();
  const auto tokenizer = Parse(file.dump());
  EXPECT_THAT(Pieces(*tokenizer, IdsOf(*tokenizer, {"<0xC3>", "<0xA9>", "a"}), false),
              ElementsAre("", "", "éa", ""));
  // One wrong byte spoils the whole run: a mark for each of its tokens.
  EXPECT_THAT(Pieces(*tokenizer, IdsOf(*tokenizer, {"<0xC3>", "<0xA9>", "<0xFF>", "a"}), false),
              ElementsAre("", "", "\uFFFD\uFFFD\uFFFD", "a", ""));
}

TEST(DetokenizerTest, StripsTheFirstSpaceOnly) {
  Json file = SmallFile({"a", "▁b"});
  file["decoder"] = Llama2Decoder();
  const auto tokenizer = Parse(file.dump());
  EXPECT_THAT(Pieces(*tokenizer, IdsOf(*tokenizer, {"▁b", "▁b", "a"}), false),
              ElementsAre("b", " b", "a", ""));
}

TEST(DetokenizerTest, HoldsAnEndBackThatMayBeStripped) {
  Json file = SmallFile({"a", "!", "!!"});
  file["decoder"] = Json::parse(R"({"type": "Sequence", "decoders": [
      {"type": "Fuse"}, {"type": "Strip", "content": "!", "start": 0, "stop": 2}]})");
  const auto tokenizer = Parse(file.dump());
  EXPECT_THAT(Pieces(*tokenizer, IdsOf(*tokenizer, {"a", "!!", "!", "a", "!"}), false),
              ElementsAre("a", "", "!", "!!a", "", ""));
}

TEST(DetokenizerTest, HoldsBackWhatMayBecomeThePatternOfAReplacement) {
  Json file = SmallFile({"a", "b", "ab"});
  file["decoder"] = Json::parse(R"({"type": "Sequence", "decoders": [
      {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "abb"}, "content": "-"}]})");
  const auto tokenizer = Parse(file.dump());
  EXPECT_THAT(Pieces(*tokenizer, IdsOf(*tokenizer, {"ab", "a", "b", "b", "a"}), false),
              ElementsAre("", "ab", "", "-", "", "a"));
}

TEST(DetokenizerTest, PutsASpaceBetweenTokensWithoutADecoder) {
  const auto tokenizer = Parse(SmallFile({"a", "b"}).dump());
  EXPECT_THAT(Pieces(*tokenizer, {0, 99, 1}, false), ElementsAre("a", "", " b", ""));
}

TEST(DetokenizerTest, MetaspaceDropsTheMarksOfTheFirstToken) {
  Json file = SmallFile({"▁a▁b", "▁c"});
  file["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
  EXPECT_EQ(Parse(file.dump())->Decode(Ids{0, 1}, false), "ab c");
  file["decoder"]["prepend_scheme"] = "never";
  EXPECT_EQ(Parse(file.dump())->Decode(Ids{0, 1}, false), " a b c");
}

}  // namespace
}  // namespace nibble
