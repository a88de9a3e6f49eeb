#include "loader/quantizing_loader.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "kernels/nf4_format.h"
#include "tests/support/lazy_device.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

constexpr int64_t kGiB = 1_GiB;

// A checkpoint of which the test knows every byte.
struct KnownCheckpoint {
  TinyCheckpoint tiny;
  std::map<std::string, std::string> data;

  KnownCheckpoint& Add(const std::string& name, std::vector<int64_t> shape, Dtype dtype,
                       int shard_index = 0) {
    int64_t elements = 1;
    for (const int64_t dimension : shape) {
      elements *= dimension;
    }
    data[name] = SeededData(dtype, elements, static_cast<uint32_t>(data.size()) + 1);
    tiny.Add(name, std::move(shape), dtype, data[name], shard_index);
    return *this;
  }
};

void ExpectEqualToTheReference(Device& device, const Weights& weights,
                               const std::map<std::string, std::string>& data,
                               ScaleSearch search = ScaleSearch::kNone) {
  for (const PlannedTensor& tensor : weights.plan().tensors) {
    const std::span<const std::byte> source = std::as_bytes(std::span(data.at(tensor.name)));
    int64_t covered_bytes = 0;
    for (const PlannedPart& part : tensor.parts) {
      const int64_t part_bytes = part.element_count * DtypeBits(tensor.source_dtype) / 8;
      const int64_t offset = part[Plane::kData].file_offset - tensor.file_offset;
      const auto elements =
          source.subspan(static_cast<size_t>(offset), static_cast<size_t>(part_bytes));
      EXPECT_TRUE(LoadedPart(device, weights, tensor, part) ==
                  ExpectedPart(tensor, elements, search))
          << tensor.name << " at " << offset;
      covered_bytes += part_bytes;
    }
    EXPECT_EQ(covered_bytes, std::ssize(source)) << tensor.name;
  }
}

struct Variant {
  bool lazy;
  Format format;
  int64_t block_size;
  Dtype dtype;
  int reader_count;
  int64_t staging_bytes;
  bool double_quantization = false;
};

class LoadedBytesTest : public testing::TestWithParam<Variant> {};

// Shapes on and off every edge: whole blocks, a short last block, one element, an odd count, more
// than a tile, fused experts whose halves are no whole blocks.
TEST_P(LoadedBytesTest, EqualThoseOfQuantizingEachPartAtOnce) {
  const Variant& variant = GetParam();
  const Dtype dtype = variant.dtype;
  KnownCheckpoint known;
  known.tiny.config_json = R"({"model_type":"qwen3_5_moe_text"})";
  const std::string layer = "model.language_model.layers.0.";
  known.Add(layer + "self_attn.q_proj.weight", {64, 64}, dtype)
      .Add(layer + "self_attn.k_proj.weight", {1, 1}, dtype)
      .Add(layer + "self_attn.v_proj.weight", {33, 65}, dtype)
      .Add(layer + "self_attn.o_proj.weight", {351, 333}, dtype)
      .Add(layer + "mlp.experts.gate_up_proj", {3, 2 * 7, 37}, dtype)
      .Add(layer + "mlp.experts.down_proj", {3, 37, 7}, dtype, 1)
      .Add(layer + "input_layernorm.weight", {64}, Dtype::kF32, 1)
      .Add("lm_head.weight", {501, 301}, dtype, 1);
  ScratchDirectory scratch;
  known.tiny.Write(scratch.path());

  const std::unique_ptr<Device> host = OpenHostDevice(kGiB);
  LazyDevice lazy(*host);
  Device& device = variant.lazy ? static_cast<Device&>(lazy) : *host;
  QuantizationSpec spec;
  spec.format = variant.format;
  spec.block_size = variant.block_size;
  spec.double_quantization = variant.double_quantization;
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto plan = PlanForTest(*checkpoint, device.traits(), spec, variant.staging_bytes);
  VramBudget budget(plan->peak_bytes());
  NullObserver observer;
  const auto weights =
      LoadForTest(device, budget, *checkpoint, plan, observer, variant.reader_count);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ExpectEqualToTheReference(device, **weights, known.data);
  EXPECT_EQ((*weights)->allocated_peak_bytes(), plan->peak_bytes());
  EXPECT_EQ((*weights)->allocated_bytes(), plan->resident_bytes());
  EXPECT_EQ(budget.Snapshot().reserved.total(), plan->resident_bytes());
}

std::vector<Variant> Variants() {
  std::vector<Variant> variants;
  for (const bool lazy : {false, true}) {
    for (const Dtype dtype : {Dtype::kBf16, Dtype::kF16, Dtype::kF32}) {
      variants.push_back({lazy, Format::kNf4, 64, dtype, 1, 1_MiB});
      variants.push_back({lazy, Format::kFp4, 32, dtype, 3, 1_MiB});
      variants.push_back({lazy, Format::kNf4, 4096, dtype, 64, 1_MiB});
      variants.push_back({lazy, Format::kNf4, 128, dtype, 2, 5_MiB});
      variants.push_back({lazy, Format::kNf4, 64, dtype, 1, 1_MiB, true});
      variants.push_back({lazy, Format::kNf4, 32, dtype, 5, 1_MiB, true});
      variants.push_back({lazy, Format::kFp4, 4096, dtype, 3, 1_MiB, true});
      variants.push_back({lazy, Format::kAsStored, 64, dtype, 0, 1_MiB});
    }
  }
  return variants;
}

INSTANTIATE_TEST_SUITE_P(Variants, LoadedBytesTest, testing::ValuesIn(Variants()),
                         [](const testing::TestParamInfo<Variant>& info) {
                           const Variant& variant = info.param;
                           return absl::StrCat(variant.lazy ? "Lazy" : "Host", "_",
                                               FormatName(variant.format), "_", variant.block_size,
                                               "_", DtypeName(variant.dtype), "_",
                                               variant.reader_count, "Readers",
                                               variant.double_quantization ? "_Double" : "");
                         });

// Sees every read, so that a test can say that there was none.
class WatchedDirectory : public CheckpointDirectory {
 public:
  explicit WatchedDirectory(std::shared_ptr<const CheckpointDirectory> directory)
      : directory_(std::move(directory)) {}

  std::string name() const override { return directory_->name(); }
  absl::StatusOr<std::vector<std::string>> List() const override { return directory_->List(); }
  absl::StatusOr<std::unique_ptr<ReadOnlyFile>> Open(absl::string_view file_name) const override {
    absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file = directory_->Open(file_name);
    if (!file.ok()) {
      return file.status();
    }
    return std::make_unique<WatchedFile>(*std::move(file), std::string(file_name), *this);
  }

  // The end of the last byte that was read of a file.
  int64_t read_end(const std::string& file_name) const {
    const std::lock_guard lock(mutex_);
    const auto found = read_ends_.find(file_name);
    return found == read_ends_.end() ? 0 : found->second;
  }
  int64_t read_bytes() const { return read_bytes_; }

 private:
  class WatchedFile : public ReadOnlyFile {
   public:
    WatchedFile(std::unique_ptr<ReadOnlyFile> file, std::string name,
                const WatchedDirectory& directory)
        : file_(std::move(file)), name_(std::move(name)), directory_(directory) {}
    absl::Status Read(int64_t offset_bytes, std::span<std::byte> target) const override {
      const std::lock_guard lock(directory_.mutex_);
      int64_t& end = directory_.read_ends_[name_];
      end = std::max(end, offset_bytes + std::ssize(target));
      directory_.read_bytes_ += std::ssize(target);
      return file_->Read(offset_bytes, target);
    }
    absl::StatusOr<FileIdentity> Identify() const override { return file_->Identify(); }

   private:
    const std::unique_ptr<ReadOnlyFile> file_;
    const std::string name_;
    const WatchedDirectory& directory_;
  };

  const std::shared_ptr<const CheckpointDirectory> directory_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, int64_t> read_ends_;
  mutable std::atomic<int64_t> read_bytes_ = 0;
};

TEST(QuantizingLoaderTest, FitsExactlyOrIsRefusedBeforeAByteOfTensorDataIsRead) {
  ScratchDirectory scratch;
  TinyLlama({.shard_count = 3}).Write(scratch.path());
  const auto watched = std::make_shared<WatchedDirectory>(
      *OpenCheckpointDirectory(scratch.path().string(), scratch.path().string()));
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(watched);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto plan = PlanForTest(*checkpoint, kHostTraits);
  const std::unique_ptr<Device> device = OpenHostDevice(plan->peak_bytes());
  NullObserver observer;

  VramBudget small(plan->peak_bytes() - 1);
  const auto refused = LoadForTest(*device, small, *checkpoint, plan, observer);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_EQ(DetailsOf(refused.status()).needed_bytes, plan->peak_bytes());
  EXPECT_EQ(DetailsOf(refused.status()).available_bytes, plan->peak_bytes() - 1);
  for (const CheckpointTensor& tensor : checkpoint->tensors) {
    const std::string& file_name =
        checkpoint->shards[static_cast<size_t>(tensor.shard_index)].file_name;
    EXPECT_LE(watched->read_end(file_name), tensor.file_offset) << tensor.name;
  }

  const int64_t before_bytes = watched->read_bytes();
  VramBudget exact(plan->peak_bytes());
  const auto weights = LoadForTest(*device, exact, *checkpoint, plan, observer);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(watched->read_bytes() - before_bytes, plan->source_bytes);
  EXPECT_EQ(exact.Snapshot().allocated_peak_bytes, plan->peak_bytes());
}

TEST(QuantizingLoaderTest, PeakIsResidentPlusStagingHoweverLargeATensorIs) {
  KnownCheckpoint known;
  known.Add("model.layers.0.mlp.up_proj.weight", {4096, 2048}, Dtype::kF32);  // 32 MiB
  ScratchDirectory scratch;
  known.tiny.Write(scratch.path());
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto plan = PlanForTest(*checkpoint, kHostTraits);
  // 8 Mi elements: 4 MiB of codes, 128 Ki scales.
  EXPECT_EQ(plan->peak_bytes(), 4_MiB + 512_KiB + 1_MiB);
  const std::unique_ptr<Device> device = OpenHostDevice(plan->peak_bytes());
  VramBudget budget(plan->peak_bytes());
  NullObserver observer;
  const auto weights = LoadForTest(*device, budget, *checkpoint, plan, observer);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ((*weights)->allocated_peak_bytes(), plan->peak_bytes());
  EXPECT_EQ(device->host_bytes(), 0);
}

TEST(QuantizingLoaderTest, LoadsRandomCheckpointsInExactlyThePlannedBytes) {
  std::mt19937 random(20261123);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 30; ++round) {
    TinyLlamaShape shape;
    shape.key_value_head_count = pick(1, 2);
    shape.head_count = shape.key_value_head_count * pick(1, 3);
    shape.hidden_size = shape.head_count * 2 * pick(1, 20);
    shape.intermediate_size = pick(1, 200);
    shape.layer_count = pick(1, 3);
    shape.vocabulary_size = pick(1, 150);
    shape.tied_embeddings = pick(0, 1) == 1;
    shape.shard_count = static_cast<int>(pick(1, 3));
    shape.dtype = pick(0, 1) == 1 ? Dtype::kBf16 : Dtype::kF32;
    ScratchDirectory scratch;
    TinyLlama(shape).Write(scratch.path());
    const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    QuantizationSpec spec;
    spec.block_size = int64_t{32} << pick(0, 7);
    const auto plan = PlanForTest(*checkpoint, kHostTraits, spec);
    const std::unique_ptr<Device> device = OpenHostDevice(plan->peak_bytes());
    VramBudget budget(plan->peak_bytes());
    NullObserver observer;
    const auto weights = LoadForTest(*device, budget, *checkpoint, plan, observer, 3);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_EQ((*weights)->allocated_peak_bytes(), plan->peak_bytes());
    EXPECT_EQ((*weights)->allocated_bytes(), plan->weights_bytes);
  }
}

// Fused experts and dense matrices of any size, cut by any staging, read by any number of threads:
// always the bytes of quantizing each part at once.
TEST(QuantizingLoaderTest, GivesTheSameBytesHoweverItIsCutAndByHoweverManyThreads) {
  std::mt19937 random(20261124);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 25; ++round) {
    const Dtype dtype = std::array{Dtype::kBf16, Dtype::kF16, Dtype::kF32}[pick(0, 2)];
    KnownCheckpoint known;
    known.tiny.config_json = R"({"model_type":"qwen3_5_moe_text"})";
    for (int layer = 0; layer < 3; ++layer) {
      const std::string name = absl::StrCat("model.language_model.layers.", layer, ".");
      known.Add(name + "self_attn.q_proj.weight", {pick(1, 700), pick(1, 700)}, dtype);
      known.Add(name + "mlp.experts.gate_up_proj", {pick(1, 4), 2 * pick(1, 9), pick(1, 99)},
                dtype);
      known.Add(name + "self_attn.q_norm.weight", {pick(1, 300)}, Dtype::kF32, 1);
    }
    ScratchDirectory scratch;
    known.tiny.Write(scratch.path());
    QuantizationSpec spec;
    spec.format = pick(0, 1) == 1 ? Format::kNf4 : Format::kFp4;
    spec.block_size = int64_t{32} << pick(0, 7);
    spec.double_quantization = pick(0, 1) == 1;
    const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const std::unique_ptr<Device> host = OpenHostDevice(kGiB);
    LazyDevice lazy(*host);
    Device& device = pick(0, 1) == 1 ? static_cast<Device&>(lazy) : *host;
    const auto plan =
        PlanForTest(*checkpoint, device.traits(), spec, kStagingBytesMin + pick(0, 100'000));
    VramBudget budget(plan->peak_bytes());
    NullObserver observer;
    const auto weights =
        LoadForTest(device, budget, *checkpoint, plan, observer, static_cast<int>(pick(1, 12)));
    ASSERT_TRUE(weights.ok()) << weights.status();
    ExpectEqualToTheReference(device, **weights, known.data);
  }
}

TEST(QuantizingLoaderTest, SearchesScalesAsItsReferenceSignedUnlessAsked) {
  KnownCheckpoint known;
  known.Add("model.layers.0.self_attn.q_proj.weight", {123, 321}, Dtype::kBf16);
  ScratchDirectory scratch;
  known.tiny.Write(scratch.path());
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::unique_ptr<Device> device = OpenHostDevice(kGiB);
  const struct {
    bool positive_scales;
    bool double_quantization;
    ScaleSearch search;
  } cases[] = {{false, false, ScaleSearch::kSigned},
               {true, false, ScaleSearch::kPositive},
               {false, true, ScaleSearch::kSigned},
               {true, true, ScaleSearch::kPositive}};
  for (const auto& option : cases) {
    QuantizationSpec spec;
    spec.scale_search = true;
    spec.positive_scales = option.positive_scales;
    spec.double_quantization = option.double_quantization;
    const auto plan = PlanForTest(*checkpoint, kHostTraits, spec);
    VramBudget budget(plan->peak_bytes());
    NullObserver observer;
    const auto weights = LoadForTest(*device, budget, *checkpoint, plan, observer, 2);
    ASSERT_TRUE(weights.ok()) << weights.status();
    ExpectEqualToTheReference(*device, **weights, known.data, option.search);
  }
}

class ErrorObserver : public NullObserver {
 public:
  void OnErrors(TensorErrors&& errors) override { errors_ = std::move(errors); }
  const TensorErrors& errors() const { return errors_; }

 private:
  TensorErrors errors_;
};

TEST(QuantizingLoaderTest, MeasuresWhatEachQuantizedTensorLost) {
  KnownCheckpoint known;
  known.Add("model.layers.0.self_attn.q_proj.weight", {700, 321}, Dtype::kF32)
      .Add("model.norm.weight", {64}, Dtype::kF32);
  ScratchDirectory scratch;
  known.tiny.Write(scratch.path());
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  QuantizationSpec spec;
  spec.error_stats = true;
  const auto plan = PlanForTest(*checkpoint, kHostTraits, spec);
  const std::unique_ptr<Device> device = OpenHostDevice(kGiB);
  VramBudget budget(kGiB);
  ErrorObserver observer;
  const auto weights = LoadForTest(*device, budget, *checkpoint, plan, observer, 3);
  ASSERT_TRUE(weights.ok()) << weights.status();

  ASSERT_EQ(observer.errors().size(), 2u);
  EXPECT_FALSE(observer.errors()[1].has_value());  // Kept.
  ASSERT_TRUE(observer.errors()[0].has_value());
  const PlannedTensor& tensor = plan->tensors[0];
  PartBytes loaded = LoadedPart(*device, **weights, tensor, tensor.parts[0]);
  const int64_t count = 700 * 321;
  const std::string& data = known.data.at(tensor.name);
  double squared_error = 0;
  double squared = 0;
  double largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    float value = 0;
    float scale = 0;
    std::memcpy(&value, data.data() + i * 4, 4);
    std::memcpy(&scale, loaded[Plane::kScales].data() + i / 64 * 4, 4);
    const int code = std::to_integer<int>(loaded[Plane::kData][static_cast<size_t>(i / 2)]) >>
                         (i % 2 == 0 ? 4 : 0) &
                     0xf;
    const double difference =
        static_cast<double>(value) -
        static_cast<double>(kNf4Values[static_cast<size_t>(code)]) * static_cast<double>(scale);
    squared_error += difference * difference;
    squared += static_cast<double>(value) * static_cast<double>(value);
    largest = std::max(largest, std::fabs(difference));
  }
  // The product and the difference are rounded to fp32: each is within 2^-24 of a value that is at
  // most the block's scale, while an error of a weight is about a tenth of it.
  const ErrorSums& sums = *observer.errors()[0];
  EXPECT_NEAR(sums.squared_error / squared_error, 1, 1e-5);
  EXPECT_NEAR(sums.squared / squared, 1, 1e-12);
  EXPECT_NEAR(static_cast<double>(sums.error_max) / largest, 1, 1e-5);
}

class RecordingObserver : public LoadObserver {
 public:
  void OnProgress(const LoadProgress& progress) override {
    const std::lock_guard lock(mutex_);
    seen_.push_back(progress);
  }
  bool cancelled() const override { return false; }
  const std::vector<LoadProgress>& seen() const { return seen_; }

 private:
  std::mutex mutex_;
  std::vector<LoadProgress> seen_;
};

TEST(QuantizingLoaderTest, ReportsEveryTileUntilAllIsDone) {
  ScratchDirectory scratch;
  TinyLlama().Write(scratch.path());
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto plan = PlanForTest(*checkpoint, kHostTraits);
  const std::unique_ptr<Device> device = OpenHostDevice(kGiB);
  VramBudget budget(kGiB);
  RecordingObserver observer;
  ASSERT_TRUE(LoadForTest(*device, budget, *checkpoint, plan, observer, 1).ok());
  // Every tensor of the tiny model is one tile.
  ASSERT_EQ(observer.seen().size(), plan->tensors.size());
  for (size_t index = 1; index < observer.seen().size(); ++index) {
    EXPECT_GT(observer.seen()[index].read_bytes, observer.seen()[index - 1].read_bytes);
  }
  const LoadProgress& last = observer.seen().back();
  EXPECT_EQ(last.read_bytes, plan->source_bytes);
  EXPECT_EQ(last.source_bytes, plan->source_bytes);
  EXPECT_EQ(last.tensors_done, std::ssize(plan->tensors));
  EXPECT_EQ(last.tensors_total, std::ssize(plan->tensors));
}

TEST(QuantizingLoaderTest, TwoLoadsSideBySideKeepToTheirPlans) {
  ScratchDirectory scratch;
  TinyLlama({.layer_count = 4}).Write(scratch.path() / "first");
  TinyLlama({.hidden_size = 128, .dtype = Dtype::kF16}).Write(scratch.path() / "second");
  const Checkpoint checkpoints[] = {*OpenForTest(scratch.path() / "first"),
                                    *OpenForTest(scratch.path() / "second")};
  const std::shared_ptr<const LoadPlan> plans[] = {PlanForTest(checkpoints[0], kHostTraits),
                                                   PlanForTest(checkpoints[1], kHostTraits)};
  const int64_t total_bytes = plans[0]->peak_bytes() + plans[1]->peak_bytes();
  const std::unique_ptr<Device> device = OpenHostDevice(total_bytes);
  VramBudget budget(total_bytes);
  std::unique_ptr<Weights> loaded[2];
  const auto load = [&](size_t index) {
    NullObserver observer;
    auto weights = LoadForTest(*device, budget, checkpoints[index], plans[index], observer, 2);
    ASSERT_TRUE(weights.ok()) << weights.status();
    loaded[index] = *std::move(weights);
  };
  std::thread other(load, 1);
  load(0);
  other.join();
  for (const size_t index : {0, 1}) {
    ASSERT_NE(loaded[index], nullptr);
    EXPECT_EQ(loaded[index]->allocated_peak_bytes(), plans[index]->peak_bytes());
  }
}

}  // namespace
}  // namespace nibble
