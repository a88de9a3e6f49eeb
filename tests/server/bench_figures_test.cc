#include "server/command_line/bench_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace nibble {
namespace {

using testing::HasSubstr;

TEST(BenchFiguresTest, TakesTheMiddleOfOddAndEvenCounts) {
  EXPECT_EQ(SpreadOf({3, 1, 2}).median, 2);
  EXPECT_EQ(SpreadOf({4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(SpreadOf({7}).median, 7);
  const Spread spread = SpreadOf({5, 1, 9});
  EXPECT_EQ(spread.least, 1);
  EXPECT_EQ(spread.most, 9);
}

// 2 GB in 1 s against 0.5 s and 0.25 s: half the rate of the second in one run, a quarter in the
// other two.
const std::vector<BenchRow> kRows = {{"load", "", {1, 1, 1}}, {"read", "", {0.5, 0.25, 0.25}}};

TEST(BenchFiguresTest, SharesAreMediansOfTheRunsOwnRatios) {
  const auto json = nlohmann::json::parse(BenchJson(kRows, 2e9, "\"bench\": \"x\", "));
  EXPECT_EQ(json["bench"], "x");
  EXPECT_EQ(json["runs"], 3);
  EXPECT_EQ(json["rows"]["load"]["share_of_first"], 1);
  EXPECT_EQ(json["rows"]["read"]["share_of_first"], 0.25);
  EXPECT_EQ(json["rows"]["read"]["gb_per_second"]["median"], 8);
  EXPECT_EQ(json["rows"]["read"]["gb_per_second"]["min"], 4);
}

TEST(BenchFiguresTest, PrintsATable) {
  EXPECT_THAT(RenderBench(kRows, 2e9), HasSubstr("load  1.000 s  2.00  2.00  2.00     1.00"));
}

// Twice and four times the first in runs of their own: the median is of the ratios, not of the
// rates.
TEST(BenchFiguresTest, SetsRatesBesideTheFirst) {
  const std::vector<RateRow> rows = {{"one", "", {10, 20, 40}}, {"many", "", {20, 80, 160}}};
  const auto json = nlohmann::json::parse(RatesJson(rows, "tokens_per_second", "\"x\": 1, "));
  EXPECT_EQ(json["x"], 1);
  EXPECT_EQ(json["runs"], 3);
  EXPECT_EQ(json["rows"]["one"]["multiple_of_first"], 1);
  EXPECT_EQ(json["rows"]["many"]["multiple_of_first"], 4);
  EXPECT_EQ(json["rows"]["many"]["tokens_per_second"]["median"], 80);
  EXPECT_EQ(json["rows"]["many"]["tokens_per_second"]["max"], 160);
  EXPECT_THAT(RenderRates(rows, "TOKENS/S"), HasSubstr("many      80.0  20.0  160.0    4.00"));
}

}  // namespace
}  // namespace nibble
