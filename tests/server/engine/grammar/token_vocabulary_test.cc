#include "server/engine/grammar/token_vocabulary.h"

#include <map>

#include "gmock/gmock.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;

// The tokens that a walk over the whole trie meets, spelled from the bytes on its way.
std::map<int32_t, std::string> Walked(const TokenVocabulary& vocabulary) {
  std::map<int32_t, std::string> tokens;
  std::string path;
  const auto nodes = vocabulary.nodes();
  for (size_t i = 0; i + 1 < nodes.size(); ++i) {
    path.resize(nodes[i].depth - size_t{1});
    path.push_back(static_cast<char>(nodes[i].byte));
    for (int32_t k = nodes[i].tokens_begin; k < nodes[i + 1].tokens_begin; ++k) {
      tokens[vocabulary.sorted_ids()[static_cast<size_t>(k)]] = path;
    }
  }
  return tokens;
}

TEST(TokenVocabularyTest, AWalkSpellsEveryTokenThatMayBeChosen) {
  const TokenVocabulary vocabulary({"ab", "", "a", "\xff", "abc", "b", "ab", "<end>"}, {7});
  const std::map<int32_t, std::string> expected = {{0, "ab"},  {2, "a"}, {3, "\xff"},
                                                   {4, "abc"}, {5, "b"}, {6, "ab"}};
  EXPECT_EQ(Walked(vocabulary), expected);
  EXPECT_TRUE(vocabulary.IsEnd(7));
  EXPECT_FALSE(vocabulary.IsEnd(0));
}

TEST(TokenVocabularyTest, SubtreesEndWhereTheNextTokenBegins) {
  const TokenVocabulary vocabulary({"abc", "abd", "x"}, {0});
  // Without the end token: a, ab, abd, x.
  std::vector<int32_t> ends;
  for (const auto& node : vocabulary.nodes()) {
    ends.push_back(node.subtree_end);
  }
  EXPECT_THAT(ends, ElementsAre(3, 3, 3, 4, 4));
}

TEST(TokenVocabularyTest, NoTokensAreNoTrie) {
  const TokenVocabulary vocabulary({"", "<end>"}, {1});
  EXPECT_EQ(vocabulary.nodes().size(), 1u);
  const std::string long_token(TokenVocabulary::kTokenBytesMax + 1, 'a');
  EXPECT_EQ(TokenVocabulary({long_token, ""}, {1}).nodes().size(), 1u);
}

}  // namespace
}  // namespace nibble
