#include "server/engine/tokenizer/pre_tokenizer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/engine/tokenizer/normalizer.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;
using Strings = std::vector<std::string>;

JsonTree ToTree(const std::string& json) {
  JsonReader reader(json, {});
  JsonTree tree;
  EXPECT_TRUE(ReadJsonTree(reader, tree)) << reader.status();
  return tree;
}

// The pieces of `text`, which stands at the beginning of the input, or the error.
Strings Pieces(const Json& component, absl::string_view text) {
  const auto pre_tokenizer = PreTokenizer::Parse(ToTree(component.dump()));
  if (!pre_tokenizer.ok()) {
    return {pre_tokenizer.status().ToString()};
  }
  RegexScratch scratch;
  const auto cut = pre_tokenizer->Apply(std::string(text), /*begins_input=*/true, scratch);
  if (!cut.ok()) {
    return {cut.status().ToString()};
  }
  Strings pieces;
  for (const Span piece : cut->pieces) {
    pieces.emplace_back(piece.Of(cut->text));
  }
  return pieces;
}

std::string Normalized(const Json& component, absl::string_view text) {
  const auto normalizer = Normalizer::Parse(ToTree(component.dump()));
  if (!normalizer.ok()) {
    return normalizer.status().ToString();
  }
  RegexScratch scratch;
  const auto normalized = normalizer->Apply(text, scratch);
  return normalized.ok() ? normalized->text : normalized.status().ToString();
}

Json Split(const std::string& regex, const std::string& behavior, bool invert) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", behavior},
          {"invert", invert}};
}

// The library's own examples of its five behaviors.
TEST(PreTokenizerTest, SplitsByEachBehavior) {
  const std::string words = "\\w+|[^\\w\\s]+";
  const std::string text = "How are you doing?";
  EXPECT_EQ(Pieces(Split(words, "Removed", true), text),
            (Strings{"How", "are", "you", "doing", "?"}));
  EXPECT_EQ(Pieces(Split(words, "Isolated", true), text),
            (Strings{"How", " ", "are", " ", "you", " ", "doing", "?"}));
  EXPECT_EQ(Pieces(Split(words, "MergedWithPrevious", true), text),
            (Strings{"How ", "are ", "you ", "doing", "?"}));
  EXPECT_EQ(Pieces(Split(words, "MergedWithNext", true), text),
            (Strings{"How", " are", " you", " doing", "?"}));
  EXPECT_EQ(Pieces(Split(words, "Contiguous", true), text),
            (Strings{"How", " ", "are", " ", "you", " ", "doing?"}));
}

TEST(PreTokenizerTest, SplitsAtAStringAsItStands) {
  const Json component = {{"type", "Split"},
                          {"pattern", {{"String", "."}}},
                          {"behavior", "Isolated"},
                          {"invert", false}};
  EXPECT_EQ(Pieces(component, "a.bc"), (Strings{"a", ".", "bc"}));
}

// The expectations of the rest: pre_tokenize_str of tokenizers 0.23.3.
TEST(PreTokenizerTest, SplitsDigitsOfEveryScript) {
  const Json one = {{"type", "Digits"}, {"individual_digits", true}};
  const Json all = {{"type", "Digits"}, {"individual_digits", false}};
  EXPECT_EQ(Pieces(one, "a12½٣b"), (Strings{"a", "1", "2", "½", "٣", "b"}));
  EXPECT_EQ(Pieces(all, "a12½٣b"), (Strings{"a", "12½٣", "b"}));
}

TEST(PreTokenizerTest, SplitsPunctuationAndWords) {
  EXPECT_EQ(Pieces({{"type", "Punctuation"}}, "a,b!?"), (Strings{"a", ",", "b", "!", "?"}));
  EXPECT_EQ(Pieces({{"type", "Whitespace"}}, "Hey, don't\u3000x"),
            (Strings{"Hey", ",", "don", "'", "t", "x"}));
  EXPECT_EQ(Pieces({{"type", "WhitespaceSplit"}}, "Hey, don't\u3000x"),
            (Strings{"Hey,", "don't", "x"}));
  EXPECT_EQ(Pieces({{"type", "BertPreTokenizer"}}, "Hey, a$"), (Strings{"Hey", ",", "a", "$"}));
  EXPECT_EQ(Pieces({{"type", "CharDelimiterSplit"}, {"delimiter", "-"}}, "a--b"),
            (Strings{"a", "b"}));
  EXPECT_EQ(Pieces({{"type", "FixedLength"}, {"length", 2}}, "aébcd"), (Strings{"aé", "bc", "d"}));
}

TEST(PreTokenizerTest, MetaspacePrependsByItsScheme) {
  const auto metaspace = [](const char* scheme, bool split) -> Json {
    return {
        {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
  };
  EXPECT_EQ(Pieces(metaspace("always", true), "a b"), (Strings{"▁a", "▁b"}));
  EXPECT_EQ(Pieces(metaspace("always", false), " a b"), (Strings{"▁a▁b"}));
  EXPECT_EQ(Pieces(metaspace("never", false), "a b"), (Strings{"a▁b"}));
  const Json comma_first = {
      {"type", "Sequence"},
      {"pretokenizers", {Split(",", "Isolated", false), metaspace("first", false)}}};
  EXPECT_EQ(Pieces(comma_first, "a,b"), (Strings{"▁a", ",", "b"}));
  const Json comma_removed = {
      {"type", "Sequence"},
      {"pretokenizers", {Split(",", "Removed", false), metaspace("first", false)}}};
  EXPECT_EQ(Pieces(comma_removed, ",a,b"), (Strings{"a", "b"}));
}

TEST(PreTokenizerTest, MetaspaceRefusesTwoAnswersToOneQuestion) {
  const Json component = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", false}};
  EXPECT_THAT(Pieces(component, "a")[0], HasSubstr("add_prefix_space is false"));
}

TEST(PreTokenizerTest, ByteLevelMapsBytesToItsAlphabet) {
  const Json component = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}};
  EXPECT_EQ(Pieces(component, "i⭢j don't\n"), (Strings{"Ġi", "âŃ¢", "j", "Ġdon", "'t", "Ċ"}));
}

TEST(PreTokenizerTest, NamesWhatItDoesNotKnow) {
  const std::string error = Pieces({{"type", "UnicodeScripts"}}, "a")[0];
  EXPECT_THAT(error, HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(error, HasSubstr("UnicodeScripts"));
  EXPECT_THAT(Pieces(Split("a", "Sideways", false), "a")[0], HasSubstr("Sideways"));
  EXPECT_THAT(Normalized({{"type", "Precompiled"}}, "a"), HasSubstr("Precompiled"));
}

TEST(PreTokenizerTest, RefusesMoreComponentsThanItsLimit) {
  Json list = Json::array();
  for (int i = 0; i < 100; ++i) {
    list.push_back({{"type", "Whitespace"}});
  }
  EXPECT_THAT(Pieces({{"type", "Sequence"}, {"pretokenizers", list}}, "a")[0],
              HasSubstr("RESOURCE_EXHAUSTED"));
}

// UAX 15, figures 3 to 6: the angstrom sign, the ligature, s with two dots in both orders.
TEST(NormalizerTest, FollowsUnicodeAnnex15) {
  EXPECT_EQ(Normalized({{"type", "NFD"}}, "\u212B"), "A\u030A");
  EXPECT_EQ(Normalized({{"type", "NFC"}}, "\u212B"), "\u00C5");
  EXPECT_EQ(Normalized({{"type", "NFC"}}, "\uFB01"), "\uFB01");
  EXPECT_EQ(Normalized({{"type", "NFKC"}}, "\uFB01"), "fi");
  EXPECT_EQ(Normalized({{"type", "NFD"}}, "\u1E9B\u0323"), "\u017F\u0323\u0307");
  EXPECT_EQ(Normalized({{"type", "NFC"}}, "\u1E9B\u0323"), "\u1E9B\u0323");
  EXPECT_EQ(Normalized({{"type", "NFKD"}}, "\u1E9B\u0323"), "s\u0323\u0307");
  EXPECT_EQ(Normalized({{"type", "NFKC"}}, "\u1E9B\u0323"), "\u1E69");
  EXPECT_EQ(Normalized({{"type", "NFC"}}, "\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(Normalized({{"type", "NFC"}}, absl::string_view("\0\u212B", 4)),
            std::string("\0\u00C5", 3));
}

TEST(NormalizerTest, OrdersAMillionAccentsInTime) {
  // U+0301 is of class 230, U+0316 of 220: every pair is out of order.
  std::string text = "a";
  std::string expected = "a";
  constexpr int kPairs = 1 << 18;
  for (int i = 0; i < kPairs; ++i) {
    text += "\u0301\u0316";
    expected += "\u0316";
  }
  for (int i = 0; i < kPairs; ++i) {
    expected += "\u0301";
  }
  EXPECT_EQ(Normalized({{"type", "NFD"}}, text), expected);
}

TEST(NormalizerTest, ChangesTextInTheWaysOfTheLibrary) {
  EXPECT_EQ(Normalized({{"type", "Lowercase"}}, "AÉİΣ"), "aéi\u0307σ");
  EXPECT_EQ(Normalized({{"type", "StripAccents"}}, "e\u0301\u0300a"), "ea");
  EXPECT_EQ(
      Normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, "\u3000 a "),
      "a ");
  EXPECT_EQ(Normalized({{"type", "Prepend"}, {"prepend", "▁"}}, ""), "");
  EXPECT_EQ(Normalized({{"type", "Prepend"}, {"prepend", "▁"}}, "a"), "▁a");
  EXPECT_EQ(Normalized({{"type", "Replace"}, {"pattern", {{"Regex", "l(e)"}}}, {"content", "$1"}},
                       "le le"),
            "$1 $1");
}

TEST(NormalizerTest, StopsATextThatGrowsWithoutEnd) {
  Json list = Json::array();
  for (int i = 0; i < 20; ++i) {
    list.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaa"}});
  }
  EXPECT_THAT(Normalized({{"type", "Sequence"}, {"normalizers", list}}, "aaaaaaaa"),
              HasSubstr("RESOURCE_EXHAUSTED"));
}

}  // namespace
}  // namespace nibble
