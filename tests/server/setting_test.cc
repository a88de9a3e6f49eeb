#include "server/command_line/setting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A program with one setting of each kind.
class SettingTest : public testing::Test {
 protected:
  std::string listen_ = "127.0.0.1:1";
  std::vector<std::string> roots_;
  bool insecure_ = false;
  int64_t staging_ = 128;
  int64_t loads_ = 2;
  absl::Duration drain_ = absl::Seconds(30);
  double ratio_ = 0;
  size_t level_ = 1;
  std::vector<Setting> settings_ = {
      TextSetting("listen", "HOST:PORT", "Address.", &listen_),
      ListSetting("model-root", "DIR", "Roots.", &roots_),
      SwitchSetting("insecure", "Open.", &insecure_),
      SizeSetting("staging", "Staging.", "128MiB", [this](int64_t bytes) { staging_ = bytes; }),
      CountSetting("max-loads", "Loads.", "2", 1, 64, [this](int64_t count) { loads_ = count; }),
      DurationSetting("drain-timeout", "Drain.", &drain_),
      RatioSetting("min-quantized-ratio", "Share.", &ratio_),
      ChoiceSetting("format", "Format.", {"NF4", "AS_STORED"}, 0,
                    [this](size_t index) { level_ = index; })};
  std::vector<std::string> taken_;

  absl::Status Apply(const std::string& name, std::vector<std::string> values,
                     const std::string& origin = "--x") {
    return ApplySettings(settings_, {{name, std::move(values), origin}}, taken_);
  }

  // What a fresh program says of a bad value.
  std::string Refusal(const std::string& name, const std::string& value) {
    taken_.clear();
    return std::string(Apply(name, {value}).message());
  }
};

TEST_F(SettingTest, TakesOverValuesOfEachKind) {
  EXPECT_TRUE(Apply("listen", {"[::1]:0"}).ok());
  EXPECT_TRUE(Apply("model-root", {"/a", "/b"}).ok());
  EXPECT_TRUE(Apply("insecure", {"on"}).ok());
  EXPECT_TRUE(Apply("staging", {"1MiB"}).ok());
  EXPECT_TRUE(Apply("max-loads", {"3"}).ok());
  EXPECT_TRUE(Apply("drain-timeout", {"1m30s"}).ok());
  EXPECT_TRUE(Apply("min-quantized-ratio", {"0.5"}).ok());
  EXPECT_TRUE(Apply("format", {"as-stored"}).ok());
  EXPECT_EQ(listen_, "[::1]:0");
  EXPECT_THAT(roots_, ElementsAre("/a", "/b"));
  EXPECT_TRUE(insecure_);
  EXPECT_EQ(staging_, 1048576);
  EXPECT_EQ(loads_, 3);
  EXPECT_EQ(drain_, absl::Seconds(90));
  EXPECT_EQ(ratio_, 0.5);
  EXPECT_EQ(level_, 1);
}

TEST_F(SettingTest, RefusesBadValuesAndNamesTheirOrigin) {
  EXPECT_EQ(Refusal("max-loads", "0"), "--x: expected a whole number from 1 to 64, found '0'");
  EXPECT_THAT(Refusal("max-loads", "65"), HasSubstr("from 1 to 64"));
  EXPECT_THAT(Refusal("max-loads", "2.5"), HasSubstr("found '2.5'"));
  EXPECT_THAT(Refusal("insecure", "maybe"), HasSubstr("expected true or false"));
  EXPECT_THAT(Refusal("drain-timeout", "30"), HasSubstr("is no time"));
  EXPECT_THAT(Refusal("drain-timeout", "-1s"), HasSubstr("is no time"));
  EXPECT_THAT(Refusal("min-quantized-ratio", "1.01"), HasSubstr("from 0 to 1"));
  EXPECT_THAT(Refusal("min-quantized-ratio", "nan"), HasSubstr("from 0 to 1"));
  EXPECT_THAT(Refusal("format", "int4"), HasSubstr("expected NF4|AS_STORED, found 'int4'"));
  EXPECT_EQ(Refusal("stagin", "1"), "--x: unknown setting");
  EXPECT_EQ(loads_, 2) << "a refused value changes nothing";
}

TEST_F(SettingTest, RefusesTwoValuesWhereOneIsMeant) {
  EXPECT_THAT(Apply("listen", {"a", "b"}).message(), HasSubstr("expected one value, found 2"));
}

TEST_F(SettingTest, TheFirstSourceThatNamesASettingWins) {
  EXPECT_TRUE(Apply("staging", {"2MiB"}, "--staging").ok());
  EXPECT_TRUE(Apply("staging", {"3MiB"}, "NIBBLE_STAGING").ok());
  EXPECT_TRUE(Apply("staging", {"junk"}, "nibble.toml:3: staging").ok()) << "not even looked at";
  EXPECT_EQ(staging_, 2097152);
}

TEST_F(SettingTest, ReadsTheEnvironment) {
  const std::map<std::string, std::string> variables = {
      {"NIBBLE_MODEL_ROOT", "/a:/b:"}, {"NIBBLE_LISTEN", "h:1"}, {"NIBBLE_INSECURE", ""}};
  const std::vector<GivenSetting> given =
      FromEnvironment(settings_, [&](const std::string& name) -> const char* {
        const auto found = variables.find(name);
        return found == variables.end() ? nullptr : found->second.c_str();
      });
  ASSERT_EQ(given.size(), 2) << "an empty variable is unset";
  EXPECT_EQ(given[0].origin, "NIBBLE_LISTEN");
  EXPECT_THAT(given[0].values, ElementsAre("h:1")) << "only lists are split";
  EXPECT_THAT(given[1].values, ElementsAre("/a", "/b"));
}

}  // namespace
}  // namespace nibble
