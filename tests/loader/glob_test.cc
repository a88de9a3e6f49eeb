#include "loader/glob.h"

#include <string>

#include "gtest/gtest.h"

namespace nibble {
namespace {

TEST(GlobTest, MatchesTheWholeName) {
  EXPECT_TRUE(GlobMatches("lm_head.weight", "lm_head.weight"));
  EXPECT_FALSE(GlobMatches("lm_head", "lm_head.weight"));
  EXPECT_FALSE(GlobMatches("head.weight", "lm_head.weight"));
  EXPECT_FALSE(GlobMatches("", "x"));
  EXPECT_TRUE(GlobMatches("", ""));
}

TEST(GlobTest, StarMatchesAnyRunDotsIncluded) {
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("*.q_proj.*", "model.layers.3.self_attn.q_proj.weight"));
  EXPECT_TRUE(GlobMatches("model.*.weight", "model.layers.0.weight.weight"));
  EXPECT_TRUE(GlobMatches("**a**", "a"));
  EXPECT_FALSE(GlobMatches("*.q_proj.*", "model.layers.3.self_attn.k_proj.weight"));
  EXPECT_FALSE(GlobMatches("a*b*c", "a-b-b"));
}

TEST(GlobTest, QuestionMarkMatchesExactlyOneByte) {
  EXPECT_TRUE(GlobMatches("layers.?.x", "layers.7.x"));
  EXPECT_FALSE(GlobMatches("layers.?.x", "layers.17.x"));
  EXPECT_FALSE(GlobMatches("a?", "a"));
}

TEST(GlobTest, SetsHoldBytesRangesAndTheirNegation) {
  EXPECT_TRUE(GlobMatches("layers.[0-3].*", "layers.2.x"));
  EXPECT_FALSE(GlobMatches("layers.[0-3].*", "layers.4.x"));
  EXPECT_TRUE(GlobMatches("[qk]_proj", "k_proj"));
  EXPECT_FALSE(GlobMatches("[qk]_proj", "v_proj"));
  EXPECT_TRUE(GlobMatches("[!qk]_proj", "v_proj"));
  EXPECT_TRUE(GlobMatches("[^qk]_proj", "v_proj"));
  EXPECT_FALSE(GlobMatches("[!qk]_proj", "q_proj"));
  EXPECT_TRUE(GlobMatches("[]]", "]"));
  EXPECT_TRUE(GlobMatches("[a-]", "-"));
  EXPECT_TRUE(GlobMatches("[!]]", "x"));
  EXPECT_FALSE(GlobMatches("[!]]", "]"));
}

TEST(GlobTest, ASetThatDoesNotEndIsNoGlob) {
  EXPECT_TRUE(IsGlob("a[b]c]"));
  EXPECT_FALSE(IsGlob("a[b"));
  EXPECT_FALSE(IsGlob("["));
  EXPECT_FALSE(IsGlob("[]"));
  EXPECT_FALSE(IsGlob("[!]"));
  EXPECT_FALSE(IsGlob("[a][b"));
}

TEST(GlobTest, ManyStarsTakeNoExponentialTime) {
  std::string glob;
  for (int count = 0; count < 100; ++count) {
    glob += "*a";
  }
  const std::string name = std::string(10'000, 'a') + "b";
  EXPECT_FALSE(GlobMatches(glob, name));  // A naive search would try 10000 over 100 ways.
  EXPECT_TRUE(GlobMatches(glob + "*", name));
}

}  // namespace
}  // namespace nibble
