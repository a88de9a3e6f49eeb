#include "server/registry_log.h"

#include "gtest/gtest.h"

namespace nibble {
namespace {

TEST(RegistryLogTest, TheLastLineOfABrokenDeviceSaysSo) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Logger logger(LogLevel::kInfo, LogFormat::kText);
  RegistryLog log(logger, "cuda:0");
  EXPECT_EXIT(log.OnDeviceBroken(absl::InternalError("illegal address")),
              testing::ExitedWithCode(kDeviceBrokenExitCode),
              "level=critical event=\"device cuda:0 is broken: illegal address; exiting so that a "
              "supervisor restarts\"\n$");
}

}  // namespace
}  // namespace nibble
