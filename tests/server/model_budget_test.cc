// Loads against the budget and the device: they fit or are refused, and leave nothing behind.

#include <algorithm>
#include <cstring>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/registry_fixture.h"
#include "tests/support/recording_directory.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::SizeIs;

constexpr const char* kShards[] = {"model-00001-of-00002.safetensors",
                                   "model-00002-of-00002.safetensors"};

class ModelBudgetTest : public RegistryFixture {
 protected:
  using ReadLog = std::shared_ptr<ReadRecord>;

  // Of everything that is read through the registry, the checkpoint "sharded" among it. Before the
  // registry's first use.
  ReadLog RecordReads() {
    TinyLlamaShape shape;
    shape.shard_count = 2;
    TinyLlama(shape).Write(root_.path() / "sharded");
    auto record = std::make_shared<ReadRecord>();
    options_.resolve_source = [record](const std::vector<std::string>& roots,
                                       absl::string_view source)
        -> absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> {
      auto directory = ResolveSource(roots, source);
      if (!directory.ok()) {
        return directory.status();
      }
      return std::make_shared<RecordingDirectory>(*std::move(directory), record);
    };
    return record;
  }

  // Bytes behind the headers of the shards, whose length stands in their first eight bytes.
  int64_t TensorBytesIn(const ReadRecord& record) const {
    int64_t bytes = 0;
    for (const char* const shard : kShards) {
      const std::string content = ReadFile(root_.path() / "sharded" / shard);
      int64_t header_bytes = 0;
      std::memcpy(&header_bytes, content.data(), sizeof(header_bytes));
      const int64_t data_begin = 8 + header_bytes;
      for (const ReadRecord::Read& read : record.reads()) {
        const int64_t end = read.offset_bytes + read.bytes;
        bytes += read.file_name == shard
                     ? std::max<int64_t>(0, end - std::max(data_begin, read.offset_bytes))
                     : 0;
      }
    }
    return bytes;
  }

  int64_t PeakOf(const std::string& source) { return Plan(source)->plan->peak_bytes(); }
};

TEST_F(ModelBudgetTest, LoadsIntoExactlyItsPeak) {
  ASSERT_TRUE(budget_.SetLimit(PeakOf("tiny")).ok());
  LoadReady(Request("llama"));
}

TEST_F(ModelBudgetTest, RefusesWithOneByteLessBeforeReadingAnything) {
  const int64_t peak_bytes = PeakOf("tiny");
  ASSERT_TRUE(budget_.SetLimit(peak_bytes - 1).ok());
  const StartedLoad load = Start(Request("llama"));
  const absl::Status status = load.listener->AwaitDone().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.reason, "BUDGET_EXCEEDED");
  EXPECT_EQ(details.resource, "llama");
  EXPECT_EQ(details.needed_bytes, peak_bytes);
  EXPECT_EQ(details.available_bytes, peak_bytes - 1);
  EXPECT_THAT(details.remedies, Not(IsEmpty()));
  EXPECT_FALSE(load.listener->AwaitPlan().fits());
  EXPECT_EQ(load.listener->AwaitPlan().remedies, details.remedies);
  EXPECT_EQ(observer_.read_bytes(), 0);
  EXPECT_THAT(observer_.refused(), ElementsAre("BUDGET_EXCEEDED"));
  EXPECT_THAT(observer_.states("llama"), ElementsAre(ModelState::kQueued, ModelState::kFailed));
}

// What would help a refused load takes many plans. Meanwhile everybody else is answered: nobody
// waits for half as long as that takes, though it is most of what the load does.
TEST_F(ModelBudgetTest, RemediesAreWorkedOutWhileOthersAreAnswered) {
  constexpr int kTensorCount = 5'000;
  constexpr int kGlobCount = 64;
  const std::string filler(60, 'a');
  TinyCheckpoint checkpoint;
  checkpoint.config_json = R"({"model_type":"unheard_of"})";
  for (int index = 0; index < kTensorCount; ++index) {
    checkpoint.Add(absl::StrCat(filler, index, ".weight"), {1, 32});
  }
  LoadRequest request = Request("large", "many");
  for (int index = 0; index < kGlobCount; ++index) {
    checkpoint.Add(absl::StrCat(filler, "b", index), {1});
    request.quantization.keep.push_back(absl::StrCat("*", filler.substr(30), "*b", index));
  }
  checkpoint.Write(root_.path() / "many");
  ASSERT_TRUE(budget_.SetLimit(1000).ok());
  registry();
  const absl::Time start = absl::Now();
  const StartedLoad load = Start(request);
  absl::Duration longest;
  while (!load.listener->is_done()) {
    const absl::Time asked = absl::Now();
    static_cast<void>(registry().Get("large"));
    longest = std::max(longest, absl::Now() - asked);
    std::this_thread::yield();
  }
  const ErrorDetails details = DetailsOf(load.listener->AwaitDone().status());
  EXPECT_EQ(details.reason, "BUDGET_EXCEEDED");
  EXPECT_EQ(load.listener->AwaitPlan().remedies, details.remedies);
  EXPECT_LT(longest, (absl::Now() - start) / 2);
}

TEST_F(ModelBudgetTest, ALoadRefusedBesideAnotherSucceedsAfterItsUnload) {
  LoadReady(Request("first"));
  const int64_t held_bytes = budget_.Snapshot().reserved.total();
  ASSERT_TRUE(budget_.SetLimit(held_bytes + PeakOf("other") - 1).ok());
  EXPECT_EQ(DetailsOf(LoadFails(Request("second", "other"))).reason, "BUDGET_EXCEEDED");
  EXPECT_EQ(StateOf("first"), ModelState::kReady);
  ASSERT_TRUE(Unload("first").ok());
  LoadReady(Request("second", "other"));
}

TEST_F(ModelBudgetTest, TwoLoadsSideBySideKeepTheirPeaksUnderOneBudget) {
  const int64_t both_bytes = PeakOf("tiny") + PeakOf("other");
  ASSERT_TRUE(budget_.SetLimit(both_bytes).ok());
  const StartedLoad first = StartAndBlock(Request("first"));
  const StartedLoad second = Start(Request("second", "other"));
  device_.gate().AwaitWaiting(2);
  const LedgerSnapshot meanwhile = budget_.Snapshot();
  EXPECT_EQ(meanwhile.allocated.total(), both_bytes) << "all of a peak is taken before reading";
  EXPECT_THAT(meanwhile.owners, SizeIs(2));
  device_.gate().Open();
  for (const StartedLoad& load : {first, second}) {
    const absl::StatusOr<ModelInfo> model = load.listener->AwaitDone();
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->peak_bytes, model->plan->peak_bytes());
  }
  EXPECT_EQ(budget_.Snapshot().allocated_peak_bytes, both_bytes);
}

TEST_F(ModelBudgetTest, ResourcesAreReleasedIfTheLoadFails) {
  const std::filesystem::path file = root_.path() / "tiny" / "model.safetensors";
  const StartedLoad load = StartAndBlock(Request("llama"));
  TruncateFile(file, 100);
  device_.gate().Open();
  EXPECT_EQ(load.listener->AwaitDone().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(StateOf("llama"), ModelState::kFailed);
  ExpectEmptyLedger();
  EXPECT_GT(registry().Get("llama")->plan->peak_bytes(), 0) << "the totals stay";
  EXPECT_THAT(registry().Get("llama")->plan->tensors, IsEmpty());
}

TEST_F(ModelBudgetTest, ADeviceFilledByOthersIsRefusedWithBothFigures) {
  const int64_t peak_bytes = PeakOf("tiny");
  const int64_t left_bytes = peak_bytes - host_->traits().granularity_bytes;
  const absl::StatusOr<DeviceSpan> others = host_->Allocate(kDeviceBytes - left_bytes);
  const ErrorDetails details = DetailsOf(LoadFails(Request("llama")));
  EXPECT_EQ(details.reason, "DEVICE_MEMORY_TAKEN");
  EXPECT_EQ(details.needed_bytes, peak_bytes);
  EXPECT_EQ(details.available_bytes, left_bytes);
  EXPECT_EQ(budget_.Snapshot().reserved.total(), 0);
  EXPECT_EQ(observer_.read_bytes(), 0);
  host_->Free(*others);
  LoadReady(Request("llama"));
}

TEST_F(ModelBudgetTest, ARefusedLoadReadsNotOneByteOfTensorData) {
  const ReadLog reads = RecordReads();
  const int64_t peak_bytes = PeakOf("sharded");
  ASSERT_TRUE(budget_.SetLimit(peak_bytes - 1).ok());
  EXPECT_EQ(DetailsOf(LoadFails(Request("llama", "sharded"))).reason, "BUDGET_EXCEEDED");
  EXPECT_THAT(reads->files(), IsSupersetOf({"config.json", kShards[0], kShards[1]}))
      << "the log hears what is read";
  EXPECT_EQ(TensorBytesIn(*reads), 0);
  ASSERT_TRUE(budget_.SetLimit(peak_bytes).ok());
  EXPECT_EQ(TensorBytesIn(*reads), LoadReady(Request("llama", "sharded")).plan->source_bytes);
}

}  // namespace
}  // namespace nibble
