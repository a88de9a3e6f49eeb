#include "server/command_line/settings_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

std::string Refusal(const char* toml) {
  return std::string(ParseSettingsFile("nibble.toml", toml).status().message());
}

TEST(SettingsFileTest, ReadsServeAndModels) {
  const absl::StatusOr<SettingsFile> file = ParseSettingsFile("nibble.toml", R"(
[serve]
vram_budget = "24GiB"   # underscores as well
max-loads = 3
insecure = true
model-root = ["/a", "/b"]

[[model]]
name = "x"
source = "/a/x"
[[model]]
name = "y"
min-quantized-ratio = 0.5
)");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->serve.size(), 4);
  EXPECT_EQ(file->serve[0].name, "insecure") << "in the order of the names";
  EXPECT_THAT(file->serve[0].values, ElementsAre("true"));
  EXPECT_THAT(file->serve[1].values, ElementsAre("3"));
  EXPECT_THAT(file->serve[2].values, ElementsAre("/a", "/b"));
  EXPECT_EQ(file->serve[3].name, "vram-budget");
  EXPECT_EQ(file->serve[3].origin, "nibble.toml:3: vram_budget");
  ASSERT_EQ(file->models.size(), 2);
  EXPECT_THAT(file->models[1][0].values, ElementsAre("0.5"));
}

TEST(SettingsFileTest, AnEmptyFileSaysNothing) {
  const absl::StatusOr<SettingsFile> file = ParseSettingsFile("nibble.toml", "");
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->serve.empty() && file->models.empty());
}

TEST(SettingsFileTest, NamesFileAndLineOfWhatItRefuses) {
  EXPECT_THAT(Refusal("[serve]\nstaging = \n"), StartsWith("nibble.toml:2: "));
  EXPECT_THAT(Refusal("\n\nstaging = 1\n"), StartsWith("nibble.toml:3: staging: expected only"));
  EXPECT_THAT(Refusal("[server]\n"), StartsWith("nibble.toml:1: server: expected only"));
  EXPECT_THAT(Refusal("serve = 3\n"), StartsWith("nibble.toml:1: serve: expected only"));
  EXPECT_THAT(Refusal("[model]\nname = 'x'\n"), HasSubstr("expected [[model]] tables"));
  EXPECT_THAT(Refusal("[serve]\n\nlisten = 1979-05-27\n"), StartsWith("nibble.toml:3: listen: "));
  EXPECT_THAT(Refusal("[serve.tls]\ncert = 'x'\n"), HasSubstr("tls: expected text"));
  EXPECT_THAT(Refusal("[serve]\nmodel-root = [['/a']]\n"), HasSubstr("model-root: expected text"));
}

TEST(SettingsFileTest, RefusesAKeyInBothSpellings) {
  EXPECT_THAT(Refusal("[serve]\nmax-loads = 1\nmax_loads = 2\n"), HasSubstr("given twice"));
}

TEST(SettingsFileTest, SaysWhichFileIsMissing) {
  EXPECT_THAT(std::string(ReadSettingsFile("/no/such.toml").status().message()),
              StartsWith("/no/such.toml: the settings file cannot be opened"));
}

}  // namespace
}  // namespace nibble
