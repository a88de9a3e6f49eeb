#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "server/command_line/command.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A program with a command, one of a group, and something to see of them.
class CommandLineTest : public testing::Test {
 protected:
  std::string name_;
  std::string note_;
  std::vector<std::string> keep_;
  bool pinned_ = false;
  std::vector<GivenSetting> file_;
  std::string ran_;

  int Run(std::vector<const char*> arguments) {
    Command load;
    load.name = "load";
    load.positionals = {{"NAME", "", &name_}};
    load.groups = {
        {"A", {TextSetting("note", "TEXT", "", &note_)}},
        {"B", {ListSetting("keep", "GLOB", "", &keep_), SwitchSetting("pinned", "", &pinned_)}}};
    load.read_file = [this] { return file_; };
    load.run = [this] {
      ran_ = "load";
      return 1;
    };
    Command bench;
    bench.name = "bench load";
    bench.run = [this] {
      ran_ = "bench load";
      return 0;
    };
    arguments.insert(arguments.begin(), "nibble");
    return RunCommandLine({load, bench}, static_cast<int>(arguments.size()), arguments.data());
  }
};

TEST_F(CommandLineTest, RunsTheCommandThatIsNamedAndReturnsItsCode) {
  EXPECT_EQ(Run({"load", "x"}), 1);
  EXPECT_EQ(ran_, "load");
  EXPECT_EQ(name_, "x");
  EXPECT_EQ(Run({"bench", "load"}), 0);
  EXPECT_EQ(ran_, "bench load");
}

TEST_F(CommandLineTest, FlagsMayStandAnywhereAndRepeat) {
  Run({"load", "--keep", "[ab]*", "x", "--keep=c", "--pinned"});
  EXPECT_EQ(name_, "x");
  EXPECT_THAT(keep_, ElementsAre("[ab]*", "c"));
  EXPECT_TRUE(pinned_);
}

TEST_F(CommandLineTest, AModelMayBeCalledAsACommand) {
  EXPECT_EQ(Run({"load", "load"}), 1);
  EXPECT_EQ(name_, "load");
}

TEST_F(CommandLineTest, FlagBeatsEnvironmentBeatsFile) {
  setenv("NIBBLE_NOTE", "environment", 1);
  file_ = {{"note", {"file"}, "f:1"}, {"pinned", {"true"}, "f:2"}};
  Run({"load", "x", "--note", "flag"});
  EXPECT_EQ(note_, "flag");
  EXPECT_TRUE(pinned_) << "the file decides what nothing else does";
  Run({"load", "x", "--pinned=false"});
  EXPECT_EQ(note_, "environment");
  EXPECT_FALSE(pinned_);
  unsetenv("NIBBLE_NOTE");
  Run({"load", "x"});
  EXPECT_EQ(note_, "file");
}

TEST_F(CommandLineTest, RefusesWhatIsNoUsageWithTwo) {
  EXPECT_EQ(Run({}), kExitUsage);
  EXPECT_EQ(Run({"lod", "x"}), kExitUsage);
  EXPECT_EQ(Run({"load"}), kExitUsage) << "NAME is missing";
  EXPECT_EQ(Run({"load", "x", "y"}), kExitUsage);
  EXPECT_EQ(Run({"load", "x", "--nope"}), kExitUsage);
  EXPECT_EQ(Run({"load", "x", "--note"}), kExitUsage);
  EXPECT_EQ(Run({"load", "x", "--note", "a", "--note", "b"}), kExitUsage);
  EXPECT_EQ(Run({"load", "x", "--pinned=perhaps"}), kExitUsage);
  EXPECT_EQ(Run({"bench"}), kExitUsage);
  EXPECT_EQ(ran_, "");
}

TEST_F(CommandLineTest, SaysWhichSourceIsWrong) {
  file_ = {{"nope", {"1"}, "nibble.toml:7: nope"}};
  testing::internal::CaptureStderr();
  EXPECT_EQ(Run({"load", "x"}), kExitUsage);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("nibble load: nibble.toml:7: nope: unknown setting"));
}

TEST_F(CommandLineTest, HelpIsDone) {
  EXPECT_EQ(Run({"--help"}), kExitDone);
  EXPECT_EQ(Run({"load", "--help"}), kExitDone);
  EXPECT_EQ(Run({"bench", "--help"}), kExitDone);
  EXPECT_EQ(ran_, "");
}

}  // namespace
}  // namespace nibble
