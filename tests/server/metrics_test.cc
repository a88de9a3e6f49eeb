#include "server/metrics.h"

#include <cstdlib>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A daemon with one READY model of 300 bytes of weights, one FAILED, and a runtime reservation.
class MetricsTest : public ::testing::Test {
 protected:
  MetricsTest() {
    auto plan = std::make_shared<LoadPlan>();
    plan->weights_bytes = 300;
    plan->staging_bytes = 50;
    plan->loaded_elements = 200;
    plan->quantized_elements = 150;
    ready_.name = "tiny";
    ready_.state = ModelState::kReady;
    ready_.plan = plan;
    ready_.peak_bytes = 353;
    ready_.load_duration = absl::Seconds(2);
    ModelInfo failed;
    failed.name = "broken";
    failed.state = ModelState::kFailed;
    snapshot_.models = {failed, ready_};
    LedgerSnapshot::Owner runtime;
    runtime.name = "runtime";
    runtime.reserved[Purpose::kRuntime] = 100;
    LedgerSnapshot::Owner owner;
    owner.name = "tiny";
    owner.reserved[Purpose::kWeights] = owner.allocated[Purpose::kWeights] = 300;
    snapshot_.ledger.owners = {runtime, owner};
    snapshot_.ledger.sequence = 7;
    snapshot_.ledger.limit_bytes = 34'359'738'368;
    snapshot_.ledger.reserved[Purpose::kRuntime] = 100;
    snapshot_.ledger.reserved[Purpose::kWeights] = 300;
    snapshot_.ledger.allocated[Purpose::kWeights] = 300;
    snapshot_.ledger.allocated_peak_bytes = 353;
    sample_.device = "cuda:0";
    sample_.memory = {150'000'000'000, 140'000'000'000, 1300};
    sample_.rss_bytes = 5000;
    sample_.pinned_bytes = 60;
  }

  std::string Render() const { return metrics_.Render(snapshot_, sample_, connections_); }

  void ExpectLines(std::initializer_list<const char*> lines) const {
    const std::string text = "\n" + Render();
    for (const char* line : lines) {
      EXPECT_THAT(text, HasSubstr(std::string("\n") + line + "\n"));
    }
  }

  Metrics metrics_{"1.2.3", "none"};
  ModelInfo ready_;
  StateSnapshot snapshot_;
  MemorySample sample_;
  std::vector<Listener::ProtocolCounts> connections_ = {{"grpc", 3, 10, 1}};
};

TEST_F(MetricsTest, RendersTheLedger) {
  ExpectLines({
      R"(nibble_vram_budget_bytes{device="cuda:0"} 34359738368)",
      R"(nibble_vram_peak_bytes{device="cuda:0"} 353)",
      R"(nibble_ledger_sequence{device="cuda:0"} 7)",
      R"(nibble_vram_reserved_bytes{device="cuda:0",purpose="weights"} 300)",
      R"(nibble_vram_reserved_bytes{device="cuda:0",purpose="runtime"} 100)",
      R"(nibble_vram_reserved_bytes{device="cuda:0",purpose="staging"} 0)",
      R"(nibble_vram_reserved_bytes{device="cuda:0",purpose="kv_cache"} 0)",
      R"(nibble_vram_reserved_bytes{device="cuda:0",purpose="workspace"} 0)",
      R"(nibble_vram_allocated_bytes{device="cuda:0",purpose="weights"} 300)",
      R"(nibble_vram_allocated_bytes{device="cuda:0",purpose="runtime"} 0)",
  });
}

TEST_F(MetricsTest, RendersWhatTheSystemSays) {
  ExpectLines({
      R"(nibble_device_memory_total_bytes{device="cuda:0"} 150000000000)",
      R"(nibble_device_memory_free_bytes{device="cuda:0"} 140000000000)",
      R"(nibble_runtime_measured_bytes{device="cuda:0"} 1000)",
      R"(nibble_host_memory_bytes{kind="rss"} 5000)",
      R"(nibble_host_memory_bytes{kind="pinned"} 60)",
      R"(nibble_build_info{cuda="none",version="1.2.3"} 1)",
      R"(nibble_connections{protocol="grpc"} 3)",
      R"(nibble_connections_refused_total{protocol="grpc"} 1)",
  });
}

TEST_F(MetricsTest, LeavesOutWhatTheDeviceCannotTell) {
  sample_.memory.process_bytes.reset();
  EXPECT_THAT(Render(), Not(HasSubstr("nibble_runtime_measured_bytes")));
}

TEST_F(MetricsTest, RendersModels) {
  ExpectLines({
      R"(nibble_model_vram_bytes{model="tiny",device="cuda:0",purpose="weights"} 300)",
      R"(nibble_model_vram_bytes{model="tiny",device="cuda:0",purpose="staging"} 0)",
      R"(nibble_model_load_peak_bytes{model="tiny"} 353)",
      R"(nibble_model_plan_error_bytes{model="tiny"} 3)",
      R"(nibble_model_quantized_ratio{model="tiny"} 0.75)",
      R"(nibble_models{state="READY"} 1)",
      R"(nibble_models{state="FAILED"} 1)",
      R"(nibble_models{state="LOADING"} 0)",
  });
  EXPECT_THAT(Render(), Not(HasSubstr(R"(model="runtime")")));
  EXPECT_THAT(Render(), Not(HasSubstr(R"(model="broken")")));
}

TEST_F(MetricsTest, ForgetsAModelThatIsUnloaded) {
  snapshot_.models.clear();
  snapshot_.ledger.owners.clear();
  EXPECT_THAT(Render(), Not(HasSubstr("tiny")));
}

TEST_F(MetricsTest, CountsLoadsByOutcome) {
  ExpectLines({
      R"(nibble_loads_total{code="OK"} 0)",
      R"(nibble_budget_refusals_total{reason="BUDGET_EXCEEDED"} 0)",
      R"(nibble_evictions_total{reason="idle"} 0)",
      R"(nibble_checkpoint_read_bytes_total 0)",
  });
  metrics_.OnRead(4096);
  metrics_.OnRead(4096);
  metrics_.OnLoadFinished(ready_, absl::OkStatus());
  metrics_.OnLoadFinished(ModelInfo(), absl::ResourceExhaustedError(""));
  metrics_.OnRefused("BUDGET_EXCEEDED");
  ExpectLines({
      R"(nibble_loads_total{code="OK"} 1)",
      R"(nibble_loads_total{code="RESOURCE_EXHAUSTED"} 1)",
      R"(nibble_load_duration_seconds_count{code="OK"} 1)",
      R"(nibble_load_duration_seconds_sum{code="OK"} 2)",
      R"(nibble_load_duration_seconds_bucket{code="OK",le="1"} 0)",
      R"(nibble_load_duration_seconds_bucket{code="OK",le="2.5"} 1)",
      R"(nibble_quantized_elements_total{format="NF4"} 150)",
      R"(nibble_budget_refusals_total{reason="BUDGET_EXCEEDED"} 1)",
      R"(nibble_checkpoint_read_bytes_total 8192)",
  });
}

TEST_F(MetricsTest, CountsNoElementsQuantizedThatCameFromTheCache) {
  ready_.from_cache = true;
  metrics_.OnLoadFinished(ready_, absl::OkStatus());
  EXPECT_THAT(Render(), HasSubstr(R"(nibble_loads_total{code="OK"} 1)"));
  EXPECT_THAT(Render(), Not(HasSubstr("nibble_quantized_elements_total{")));
}

TEST_F(MetricsTest, CountsWhatHappensAtTheCache) {
  ExpectLines({
      "nibble_cache_hits_total 0",
      "nibble_cache_misses_total 0",
      R"(nibble_cache_fallbacks_total{reason="CACHE_CHECKSUM"} 0)",
      R"(nibble_cache_write_failures_total{reason="DISK_FULL"} 0)",
      "nibble_cache_entries_bytes 0",
  });
  ErrorDetails details;
  details.reason = "CACHE_FILE_SIZE";
  const absl::Status why = WithDetails(absl::DataLossError("short"), details);
  using Kind = CacheEvent::Kind;
  const auto tell = [this](Kind kind, const absl::Status& status = absl::OkStatus(),
                           int64_t written_bytes = 0, int64_t evicted_count = 0,
                           CacheUsage usage = {}) {
    metrics_.OnCache({kind, "tiny", status, written_bytes, evicted_count, usage});
  };
  tell(Kind::kOpened, absl::OkStatus(), 0, 0, {2, 3000});
  tell(Kind::kHit);
  tell(Kind::kMiss);
  tell(Kind::kMiss);
  tell(Kind::kFallback, why);
  tell(Kind::kWritten, absl::OkStatus(), 500, 1, {2, 2500});
  tell(Kind::kNotWritten, absl::CancelledError("unloaded"), 0, 0, {3, 3500});
  ExpectLines({
      "nibble_cache_hits_total 1",
      "nibble_cache_misses_total 2",
      R"(nibble_cache_fallbacks_total{reason="CACHE_FILE_SIZE"} 1)",
      "nibble_cache_written_bytes_total 500",
      "nibble_cache_evictions_total 1",
      R"(nibble_cache_write_failures_total{reason="CANCELLED"} 1)",
      "nibble_cache_entries 3",
      "nibble_cache_entries_bytes 3500",
  });
}

TEST_F(MetricsTest, PleasesPromtool) {
  if (std::system("command -v promtool > /dev/null") != 0) {
    GTEST_SKIP() << "promtool (package prometheus) is not installed";
  }
  metrics_.OnLoadFinished(ready_, absl::OkStatus());
  const ScratchDirectory scratch;
  const std::string path = (scratch.path() / "metrics.txt").string();
  WriteFile(path, Render());
  const std::string complaints = (scratch.path() / "complaints.txt").string();
  const int status =
      std::system(("promtool check metrics < " + path + " > " + complaints + " 2>&1").c_str());
  EXPECT_EQ(status, 0) << ReadFile(complaints);
}

}  // namespace
}  // namespace nibble
