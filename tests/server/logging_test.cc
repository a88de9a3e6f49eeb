#include "server/logging.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

TEST(LoggingTest, WritesKeysAndValues) {
  std::ostringstream out;
  Logger logger(LogLevel::kInfo, LogFormat::kText, out);
  logger.Log(LogLevel::kInfo, "load finished",
             {{"model", "tiny"}, {"bytes", int64_t{1} << 40}, {"seconds", 0.5}, {"empty", ""}});
  EXPECT_THAT(out.str(),
              EndsWith("level=info event=\"load finished\" model=tiny bytes=1099511627776 "
                       "seconds=0.5 empty=\"\"\n"));
  EXPECT_THAT(out.str(), MatchesRegex("time=....-..-..T..:..:......Z .*\n"));
}

TEST(LoggingTest, WritesAJsonObjectALine) {
  std::ostringstream out;
  Logger logger(LogLevel::kInfo, LogFormat::kJson, out);
  logger.Log(LogLevel::kWarn, "load failed", {{"message", "a \"b\"\n\xff"}, {"bytes", 7}});
  const nlohmann::json line = nlohmann::json::parse(out.str());
  EXPECT_EQ(line.at("level"), "warning");
  EXPECT_EQ(line.at("event"), "load failed");
  EXPECT_EQ(line.at("message"), "a \"b\"\n\xef\xbf\xbd");
  EXPECT_EQ(line.at("bytes"), 7);
}

TEST(LoggingTest, LetsNoValueForgeALineOrAField) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    std::ostringstream out;
    Logger logger(LogLevel::kInfo, format, out);
    logger.Log(LogLevel::kInfo, "request failed",
               {{"model", "x\ntime=now level=info event=forged"},
                {"id", "a=b \",\"level\":\"x"},
                {"escape", "\x1b[31m\xe2\x80\xa8"}});
    const std::string text = out.str();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find("\xe2\x80\xa8"), std::string::npos) << "U+2028 is a line separator";
    EXPECT_THAT(text, HasSubstr(R"(x\ntime=now)"));
    EXPECT_THAT(text, HasSubstr(R"(a=b \",\"level\":\"x)"));
  }
}

TEST(LoggingTest, BoundsALine) {
  std::ostringstream out;
  Logger logger(LogLevel::kInfo, LogFormat::kText, out);
  logger.Log(LogLevel::kInfo, "request failed", {{"message", std::string(1 << 20, 'x')}});
  EXPECT_LT(out.str().size(), 4096u);
}

TEST(LoggingTest, LeavesOutWhatIsBelowItsLevel) {
  std::ostringstream out;
  Logger logger(LogLevel::kWarn, LogFormat::kText, out);
  logger.Log(LogLevel::kInfo, "quiet");
  EXPECT_EQ(out.str(), "");
}

TEST(LoggingTest, RefusesUnknownLevelsAndFormats) {
  EXPECT_EQ(ParseLogLevel("loud").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseLogFormat("xml").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*ParseLogLevel("debug"), LogLevel::kDebug);
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
}

}  // namespace
}  // namespace nibble
