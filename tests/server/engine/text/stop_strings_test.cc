#include "server/engine/text/stop_strings.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace nibble {
namespace {

// All that comes out of a text that goes in byte by byte.
std::string PieceByPiece(const std::vector<std::string>& stops, const std::string& text,
                         size_t piece, bool& found) {
  StopStrings finder(stops);
  std::string out;
  for (size_t first = 0; first < text.size(); first += piece) {
    out += finder.Append(text.substr(first, piece));
  }
  out += finder.Finish();
  found = finder.found();
  return out;
}

TEST(StopStringsTest, EndsBeforeTheFirstStopWhateverThePieces) {
  const std::vector<std::string> stops = {"END", "ENough", "x"};
  for (size_t piece = 1; piece <= 12; ++piece) {
    bool found = false;
    EXPECT_EQ(PieceByPiece(stops, "an ENEND and an x", piece, found), "an EN") << piece;
    EXPECT_TRUE(found);
    EXPECT_EQ(PieceByPiece(stops, "an ENEN", piece, found), "an ENEN") << piece;
    EXPECT_FALSE(found);
  }
}

TEST(StopStringsTest, HoldsBackNoMoreThanWhatMayBecomeAStop) {
  StopStrings finder({"abcd"});
  EXPECT_EQ(finder.Append("xxab"), "xx");
  EXPECT_EQ(finder.Append("ab"), "ab");
  EXPECT_EQ(finder.Append("c"), "");
  EXPECT_EQ(finder.Append("e"), "abce");
  EXPECT_EQ(finder.Finish(), "");
}

TEST(StopStringsTest, SaysNothingAfterAStop) {
  StopStrings finder({"."});
  EXPECT_EQ(finder.Append("one. two"), "one");
  EXPECT_EQ(finder.Append("three"), "");
  EXPECT_EQ(finder.Finish(), "");
}

TEST(StopStringsTest, LimitsStrings) {
  EXPECT_TRUE(CheckStopStrings(std::vector<std::string>(16, "a")).ok());
  EXPECT_FALSE(CheckStopStrings(std::vector<std::string>(17, "a")).ok());
  EXPECT_FALSE(CheckStopStrings({""}).ok());
  EXPECT_FALSE(CheckStopStrings({std::string(1025, 'a')}).ok());
}

}  // namespace
}  // namespace nibble
