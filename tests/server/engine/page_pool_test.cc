#include "server/engine/page_pool.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int32_t> Tokens(int count, int first = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<int32_t> TakeBeginning(PagePool& pool, const std::vector<int32_t>& tokens) {
  const PagePool::Beginning beginning = pool.FindBeginning(tokens, [](uint64_t) { return true; });
  pool.Hold(beginning);
  return beginning.pages;
}

// A sequence that has computed all full pages of its tokens.
std::vector<int32_t> Compute(PagePool& pool, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> pages = TakeBeginning(pool, tokens);
  while (pages.size() * kPageTokens < tokens.size()) {
    pages.push_back(pool.Take());
  }
  for (size_t index = 0; (index + 1) * kPageTokens <= tokens.size(); ++index) {
    pool.Fill(pages, index, tokens);
  }
  return pages;
}

TEST(PagePoolTest, GivesEveryPageOnce) {
  PagePool pool(3, true);
  std::vector<int32_t> pages = {pool.Take(), pool.Take(), pool.Take()};
  EXPECT_EQ(pool.available(), 0);
  std::sort(pages.begin(), pages.end());
  EXPECT_THAT(pages, ElementsAre(0, 1, 2));
  pool.GiveBack(pages);
  EXPECT_EQ(pool.available(), 3);
}

TEST(PagePoolTest, SharesFullPagesOfEqualBeginningsButNotTheLastToken) {
  PagePool pool(10, true);
  const std::vector<int32_t> first = Compute(pool, Tokens(40));  // Two full pages and a half.
  EXPECT_EQ(pool.available(), 7);
  EXPECT_THAT(TakeBeginning(pool, Tokens(40)), ElementsAre(first[0], first[1]));
  // Of 32 tokens the second page would leave nothing to compute.
  EXPECT_THAT(TakeBeginning(pool, Tokens(32)), ElementsAre(first[0]));
  EXPECT_THAT(TakeBeginning(pool, Tokens(40, 1)), IsEmpty());
  std::vector<int32_t> other = Tokens(40);
  other[20] = 99;
  EXPECT_THAT(TakeBeginning(pool, other), ElementsAre(first[0]));
}

TEST(PagePoolTest, KeepsBeginningsUntilPagesAreNeeded) {
  PagePool pool(3, true);
  const std::vector<int32_t> first = Compute(pool, Tokens(33));
  pool.GiveBack(first);
  EXPECT_EQ(pool.available(), 3);
  const PagePool::Beginning beginning =
      pool.FindBeginning(Tokens(33), [](uint64_t) { return true; });
  EXPECT_EQ(beginning.pages.size(), 2);
  EXPECT_EQ(beginning.unheld, 2);
  // The free page goes first, then the end of what is kept.
  EXPECT_EQ(pool.Take(), first[2]);
  EXPECT_EQ(pool.Take(), first[1]);
  EXPECT_THAT(TakeBeginning(pool, Tokens(33)), ElementsAre(first[0]));
  EXPECT_EQ(pool.available(), 0);
}

TEST(PagePoolTest, HoldsASharedPageUntilAllHaveGivenItBack) {
  PagePool pool(4, true);
  const std::vector<int32_t> first = Compute(pool, Tokens(17));
  const std::vector<int32_t> second = TakeBeginning(pool, Tokens(17));
  pool.GiveBack(first);
  EXPECT_EQ(pool.available(), 3);
  pool.GiveBack(second);
  EXPECT_EQ(pool.available(), 4);
}

TEST(PagePoolTest, FindsNoMoreThanASequenceCanGoOnAfter) {
  PagePool pool(4, true);
  const std::vector<int32_t> first = Compute(pool, Tokens(50));  // Three full pages.
  const uint64_t second_text = pool.text(first[1]);
  const auto found = [&pool](uint64_t text) {
    return pool.FindBeginning(Tokens(50), [text](uint64_t other) { return other == text; }).pages;
  };
  EXPECT_THAT(found(second_text), ElementsAre(first[0], first[1]));
  EXPECT_THAT(found(second_text + 100), IsEmpty());
}

TEST(PagePoolTest, SharesNothingWhereItIsTold) {
  PagePool pool(4, false);
  const std::vector<int32_t> first = Compute(pool, Tokens(17));
  EXPECT_THAT(TakeBeginning(pool, Tokens(17)), IsEmpty());
  pool.GiveBack(first);
  EXPECT_THAT(TakeBeginning(pool, Tokens(17)), IsEmpty());
}

}  // namespace
}  // namespace nibble
