// The whole daemon, in a process of its own: started, asked over HTTP (this test runs no threads,
// so that it may fork), and told to stop.

#include "server/daemon.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/loopback_client.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class DaemonTest : public ::testing::Test {
 protected:
  DaemonTest() {
    TinyLlama().Write(root_.path() / "tiny");
    options_.device = "host";
    options_.vram_budget_bytes = 64_MiB;
    options_.staging_bytes = kStagingBytesMin;
    options_.model_roots = {root_.path().string()};
    options_.listen = "127.0.0.1:0";
    options_.http_listen = "127.0.0.1:0";
    options_.port_file = (root_.path() / "ports").string();
  }

  ~DaemonTest() override {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
  }

  void Start() {
    const std::string log = log_path();
    child_ = fork();
    ASSERT_GE(child_, 0);
    if (child_ == 0) {
      if (freopen(log.c_str(), "w", stderr) == nullptr) {
        _exit(99);
      }
      _exit(RunDaemon(options_));
    }
  }

  // The HTTP port, once the daemon has written it; 0 if it ended before.
  uint16_t AwaitPort() {
    while (access(options_.port_file.c_str(), R_OK) != 0) {
      if (waitpid(child_, nullptr, WNOHANG) == child_) {
        child_ = -1;
        return 0;
      }
      absl::SleepFor(absl::Milliseconds(2));
    }
    uint32_t port = 0;
    for (absl::string_view line : absl::StrSplit(ReadFile(options_.port_file), '\n')) {
      if (line.substr(0, 5) == "http=" && !absl::SimpleAtoi(line.substr(5), &port)) {
        port = 0;
      }
    }
    return static_cast<uint16_t>(port);
  }

  int AwaitExitCode() {
    int status = 0;
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::string log_path() const { return (root_.path() / "log").string(); }
  std::string Log() const { return ReadFile(log_path()); }

  ScratchDirectory root_;
  DaemonOptions options_;
  pid_t child_ = -1;
};

TEST_F(DaemonTest, ServesUntilSigtermAndExitsWithZero) {
  Start();
  const uint16_t port = AwaitPort();
  ASSERT_NE(port, 0) << Log();
  EXPECT_THAT(HttpGet(port, "/readyz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(HttpGet(port, "/metrics"), HasSubstr("nibble_vram_budget_bytes{device=\"host\"} "));
  kill(child_, SIGTERM);
  EXPECT_EQ(AwaitExitCode(), 0);
  EXPECT_THAT(Log(), HasSubstr("event=\"ready\""));
  EXPECT_THAT(Log(), HasSubstr("event=\"stopped\""));
}

TEST_F(DaemonTest, LoadsTheModelsOfItsConfiguration) {
  LoadRequest good;
  good.model = "good";
  good.source = "tiny";
  LoadRequest bad;
  bad.model = "bad";
  bad.source = "nowhere";
  options_.models = {bad, good};
  Start();
  const uint16_t port = AwaitPort();
  ASSERT_NE(port, 0) << Log();
  std::string metrics;
  while (metrics.find("nibble_models{state=\"READY\"} 1\n") == std::string::npos) {
    metrics = HttpGet(port, "/metrics");
    ASSERT_FALSE(metrics.empty()) << Log();
  }
  EXPECT_THAT(metrics, HasSubstr("nibble_model_plan_error_bytes{model=\"good\"} 0\n"));
  kill(child_, SIGINT);
  EXPECT_EQ(AwaitExitCode(), 0) << Log();
  EXPECT_THAT(Log(), HasSubstr("event=\"load failed\" model=bad"));
}

TEST_F(DaemonTest, RefusesToStartWithASentenceThatNamesTheFlag) {
  const struct {
    const char* says;
    void (*spoil)(DaemonOptions&);
  } cases[] = {
      {"--vram-budget", [](DaemonOptions& o) { o.vram_budget_bytes = 0; }},
      {"--runtime-reserve", [](DaemonOptions& o) { o.runtime_reserve_bytes = 64_MiB; }},
      {"--insecure", [](DaemonOptions& o) { o.listen = "0.0.0.0:0"; }},
      {"--device", [](DaemonOptions& o) { o.device = "tpu"; }},
      {"--model-root", [](DaemonOptions& o) { o.model_roots = {"/nonexistent"}; }},
      {"--model-root", [](DaemonOptions& o) { o.model_roots = {"/dev/null"}; }},
      {"--export-root", [](DaemonOptions& o) { o.export_roots = {"/dev/null"}; }},
      {"--staging", [](DaemonOptions& o) { o.staging_bytes = 1; }},
      {"--max-loads", [](DaemonOptions& o) { o.max_loads = 0; }},
      {"--log-level", [](DaemonOptions& o) { o.log_level = "loud"; }},
  };
  const DaemonOptions good = options_;
  for (const auto& bad : cases) {
    options_ = good;
    bad.spoil(options_);
    Start();
    EXPECT_EQ(AwaitExitCode(), 1) << bad.says;
    EXPECT_THAT(Log(), HasSubstr(bad.says));
  }
}

TEST_F(DaemonTest, NamesAnAddressInUse) {
  Start();
  const uint16_t port = AwaitPort();
  ASSERT_NE(port, 0) << Log();
  const pid_t first = child_;
  options_.http_listen = "127.0.0.1:" + std::to_string(port);
  Start();
  EXPECT_EQ(AwaitExitCode(), 1);
  EXPECT_THAT(Log(), HasSubstr(options_.http_listen));
  child_ = first;
}

}  // namespace
}  // namespace nibble
