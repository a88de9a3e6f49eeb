#include "server/exporter.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/registry_fixture.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RecordingExportListener final : public ExportListener {
 public:
  void OnProgress(int64_t written_bytes, int64_t total_bytes) override {
    gate_.Pass();
    EXPECT_FALSE(done_.happened());
    EXPECT_GE(written_bytes, written_bytes_);
    EXPECT_LE(written_bytes, total_bytes);
    written_bytes_ = written_bytes;
    total_bytes_ = total_bytes;
  }
  void OnDone(const absl::StatusOr<ExportSummary>& result) override { done_.Set(result); }
  bool cancelled() const override { return cancelled_; }

  // Where the export waits after each step, so that a test decides how far it gets.
  Gate& gate() { return gate_; }

  void Cancel() { cancelled_ = true; }
  absl::StatusOr<ExportSummary> AwaitDone() { return done_.Await(); }
  bool is_done() const { return done_.happened(); }
  bool wrote_all() const { return written_bytes_ > 0 && written_bytes_ == total_bytes_; }

 private:
  Gate gate_;
  std::atomic<bool> cancelled_ = false;
  int64_t written_bytes_ = 0;
  int64_t total_bytes_ = 0;
  Awaited<absl::StatusOr<ExportSummary>> done_;
};

class ExporterTest : public RegistryFixture {
 protected:
  ~ExporterTest() override { exporter_.reset(); }

  Exporter& exporter() {
    if (exporter_ == nullptr) {
      exporter_ = std::make_unique<Exporter>(device_, registry(),
                                             std::vector<std::string>{exports_.path().string()});
    }
    return *exporter_;
  }

  std::string Target(const std::string& name) const { return (exports_.path() / name).string(); }

  absl::Status TryStart(const std::string& model, const std::string& directory,
                        const std::shared_ptr<RecordingExportListener>& listener) {
    return exporter().Start({model, directory}, listener);
  }

  std::shared_ptr<RecordingExportListener> StartExport(
      const std::string& model, const std::string& name,
      std::shared_ptr<RecordingExportListener> listener =
          std::make_shared<RecordingExportListener>()) {
    const absl::Status status = TryStart(model, Target(name), listener);
    EXPECT_EQ(status, absl::OkStatus());
    return listener;
  }

  // An export that waits at its closed gate.
  std::shared_ptr<RecordingExportListener> StartAndBlockExport(const std::string& model,
                                                               const std::string& name) {
    auto listener = std::make_shared<RecordingExportListener>();
    listener->gate().Close();
    StartExport(model, name, listener);
    listener->gate().AwaitWaiting(1);
    return listener;
  }

  std::vector<std::string> Exports() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(exports_.path())) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  ScratchDirectory exports_;
  std::unique_ptr<Exporter> exporter_;
};

TEST_F(ExporterTest, WritesAReadyModelAndTellsProgress) {
  LoadReady(Request("a"));
  const auto listener = StartExport("a", "out");
  const absl::StatusOr<ExportSummary> summary = listener->AwaitDone();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_TRUE(listener->wrote_all());
  EXPECT_TRUE(std::filesystem::exists(exports_.path() / "out" / "model.safetensors"));
  EXPECT_EQ(host_->host_bytes(), 0);
}

TEST_F(ExporterTest, RefusesWhatItCannotBegin) {
  auto listener = std::make_shared<RecordingExportListener>();
  EXPECT_TRUE(absl::IsNotFound(TryStart("nobody", Target("out"), listener)));
  StartedLoad load = StartAndBlock(Request("a"));
  EXPECT_TRUE(absl::IsFailedPrecondition(TryStart("a", Target("out"), listener)));
  device_.gate().Open();
  ASSERT_TRUE(load.listener->AwaitDone().ok());
  EXPECT_TRUE(absl::IsInvalidArgument(TryStart("a", "/elsewhere", listener)));
  EXPECT_FALSE(listener->is_done());
  EXPECT_THAT(Exports(), IsEmpty());
}

TEST_F(ExporterTest, RunsOneExportOfAModelAndTwoInAll) {
  for (const char* model : {"a", "b", "c"}) {
    LoadReady(Request(model));
  }
  const auto first = StartAndBlockExport("a", "a");
  auto refused = std::make_shared<RecordingExportListener>();
  const absl::Status twice = TryStart("a", Target("a2"), refused);
  EXPECT_TRUE(absl::IsResourceExhausted(twice)) << twice;
  EXPECT_EQ(DetailsOf(twice).reason, "EXPORT_LIMIT");
  const auto second = StartAndBlockExport("b", "b");
  const absl::Status third = TryStart("c", Target("c"), refused);
  EXPECT_TRUE(absl::IsResourceExhausted(third)) << third;
  first->gate().Open();
  second->gate().Open();
  EXPECT_TRUE(first->AwaitDone().ok());
  EXPECT_TRUE(second->AwaitDone().ok());
  EXPECT_TRUE(StartExport("c", "c")->AwaitDone().ok());
}

TEST_F(ExporterTest, LeavesNothingWhenTheCallerIsGone) {
  LoadReady(Request("a"));
  const auto listener = StartAndBlockExport("a", "out");
  listener->Cancel();
  listener->gate().Open();
  EXPECT_TRUE(absl::IsCancelled(listener->AwaitDone().status()));
  EXPECT_THAT(Exports(), IsEmpty());
}

TEST_F(ExporterTest, AnUnloadWaitsForTheExport) {
  LoadReady(Request("a"));
  const auto listener = StartAndBlockExport("a", "out");
  const Unloaded unloaded = StartUnload("a");
  observer_.AwaitState("a", ModelState::kDraining);
  EXPECT_FALSE(unloaded->happened());
  listener->gate().Open();
  EXPECT_TRUE(listener->AwaitDone().ok());
  EXPECT_TRUE(unloaded->Await().ok());
}

TEST_F(ExporterTest, AnUnloadWithoutPatienceCancelsTheExport) {
  LoadReady(Request("a"));
  const auto listener = StartAndBlockExport("a", "out");
  std::optional<ModelHandle> handle = registry().Acquire("a").value();
  const Unloaded unloaded = StartUnload("a", absl::ZeroDuration());
  // Nothing else tells when the unloader's thread has cancelled the handles.
  const absl::Time limit = absl::Now() + kNever;
  while (!handle->cancelled() && absl::Now() < limit) {
    std::this_thread::yield();
  }
  handle.reset();
  listener->gate().Open();
  const absl::Status status = listener->AwaitDone().status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(unloaded->Await().ok());
  EXPECT_THAT(Exports(), IsEmpty());
}

TEST_F(ExporterTest, AShutdownEndsExports) {
  LoadReady(Request("a"));
  const auto listener = StartAndBlockExport("a", "out");
  listener->gate().Open();
  registry().Shutdown(absl::ZeroDuration());
  const absl::StatusOr<ExportSummary> summary = listener->AwaitDone();
  EXPECT_EQ(summary.ok(), !Exports().empty());
}

}  // namespace
}  // namespace nibble
