// Entries as they are really written: read again, they give the weights they were written from, and
// whatever stops the writer leaves nothing.

#include "loader/cache_writer.h"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "loader/quantizing_loader.h"
#include "tests/support/faulty_device.h"
#include "tests/support/lazy_device.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::IsEmpty;

bool Never() { return false; }

class CacheWriterTest : public testing::Test {
 protected:
  CacheWriterTest() {
    std::filesystem::create_directory(path());
    cache_ = *QuantizedCache::Open(path().string(), {});
    lock_.emplace(*cache_->Lock());
  }

  std::filesystem::path path() const { return scratch_.path() / "cache"; }
  std::filesystem::path source() const { return scratch_.path() / "source"; }
  std::filesystem::path entry_path() const { return path() / write_.key.entry_name; }

  // Loads `tiny`, to be written.
  void Load(const TinyCheckpoint& tiny, const QuantizationSpec& spec = {}) {
    tiny.Write(source());
    checkpoint_ = *OpenForTest(source());
    const auto plan = PlanForTest(checkpoint_, kHostTraits, spec);
    write_ = {MakeCacheKey(checkpoint_, *plan), plan, checkpoint_.config, checkpoint_.config_json};
    NullObserver observer;
    absl::StatusOr<std::unique_ptr<Weights>> weights =
        LoadForTest(*device_, budget_, checkpoint_, plan, observer);
    Check(weights.ok(), weights.status().ToString().c_str());
    weights_ = *std::move(weights);
  }

  // Everything that device memory holds of a model but padding.
  std::vector<PartBytes> AllParts(const Weights& weights) {
    std::vector<PartBytes> parts;
    for (const PlannedTensor& tensor : weights.plan().tensors) {
      for (const PlannedPart& part : tensor.parts) {
        parts.push_back(LoadedPart(*device_, weights, tensor, part));
      }
    }
    return parts;
  }

  absl::StatusOr<int64_t> Write(Device& device, absl::FunctionRef<bool()> cancelled = Never) {
    CacheWriter writer(*cache_, *lock_, write_);
    absl::Status status = writer.Begin();
    if (status.ok()) {
      status = writer.Copy(device, *weights_, cancelled);
    }
    return status.ok() ? writer.Finish() : status;
  }

  // Loads the entry and expects the weights to be those it was written from.
  absl::Status LoadEntry() {
    const absl::StatusOr<HeldEntry> held = cache_->Find(write_.key, *write_.plan);
    if (!held.ok()) {
      return held.status();
    }
    const CacheEntry& entry = held->entry;
    const nibble::LoadSource sources[] = {{&entry.checkpoint, entry.plan, entry.checksums.get()},
                                          {&checkpoint_, write_.plan}};
    FallbackObserver observer;
    const auto weights = LoadWeights(*device_, sources,
                                     *budget_.Reserve("again", write_.plan->peak()), {}, observer);
    EXPECT_TRUE(weights.ok()) << weights.status();
    EXPECT_TRUE(AllParts(**weights) == AllParts(*weights_));
    return observer.why;
  }

  std::vector<std::string> Left() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path())) {
      if (entry.is_directory()) {
        names.push_back(entry.path().filename().string());
      }
    }
    return names;
  }

  struct FallbackObserver : NullObserver {
    void OnFallback(const absl::Status& status) override { why = status; }
    absl::Status why;
  };

  ScratchDirectory scratch_;
  const std::unique_ptr<Device> device_ = OpenHostDevice(256_MiB);
  VramBudget budget_{256_MiB};
  std::unique_ptr<QuantizedCache> cache_;
  std::optional<CacheLock> lock_;
  Checkpoint checkpoint_;
  CacheWrite write_;
  std::unique_ptr<Weights> weights_;
};

// Fused experts, taken apart where they are quantized and whole where they are kept; planes of many
// pieces; parts that are no whole pieces.
TinyCheckpoint FusedExperts() {
  TinyCheckpoint tiny;
  tiny.config_json =
      R"({"model_type":"qwen3_5_moe_text","architectures":["Qwen3_5MoeForCausalLM"]})";
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    tiny.Add(std::string(layer) + "mlp.experts.gate_up_proj", {3, 2 * 210, 337});
    tiny.Add(std::string(layer) + "mlp.experts.down_proj", {3, 337, 210});
    tiny.Add(std::string(layer) + "self_attn.q_proj.weight", {353, 337}, Dtype::kF32);
    tiny.Add(std::string(layer) + "input_layernorm.weight", {337}, Dtype::kF32);
  }
  tiny.Add("lm_head.weight", {501, 337}, Dtype::kF16);
  return tiny;
}

TEST_F(CacheWriterTest, WritesWhatLoadsToTheSameWeights) {
  for (const bool double_quantization : {false, true}) {
    for (const Format format : {Format::kNf4, Format::kFp4}) {
      QuantizationSpec spec;
      spec.format = format;
      spec.double_quantization = double_quantization;
      spec.keep = {"*layers.1.mlp*"};
      Load(FusedExperts(), spec);
      LazyDevice lazy(*device_);
      const int64_t bytes_before = cache_->Measure().bytes;
      const absl::StatusOr<int64_t> bytes = Write(lazy);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      EXPECT_EQ(*bytes, cache_->Measure().bytes - bytes_before);
      EXPECT_TRUE(LoadEntry().ok()) << LoadEntry();
    }
  }
  EXPECT_EQ(cache_->Measure().entry_count, 4);
}

// The 8-bit floats of a source are in the entry as they are in memory: multiplied out, or in 4
// bits.
TEST_F(CacheWriterTest, WritesWhatWasMadeOfEightBitFloats) {
  TinyCheckpoint tiny;
  tiny.config_json =
      R"({"model_type":"llama","quantization_config":{"quant_method":"fp8","weight_block_size":[128,128]}})";
  std::mt19937 random(8);
  for (const char* name : {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"}) {
    std::string elements(200 * 300, '\0');
    for (char& element : elements) {
      element = static_cast<char>(random() % 0x70 | (random() % 2 << 7));  // Far from NaN.
    }
    tiny.Add(std::string(name) + ".weight", {200, 300}, Dtype::kF8E4M3, elements);
    tiny.Add(std::string(name) + ".weight_scale_inv", {2, 3}, Dtype::kF32);
  }
  QuantizationSpec spec;
  spec.keep = {"*k_proj*"};
  Load(tiny, spec);
  ASSERT_EQ(write_.plan->tensors.size(), 2);
  const absl::StatusOr<int64_t> bytes = Write(*device_);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const absl::Status status = LoadEntry();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(CacheWriterTest, WritesACheckpointThatLoadsByItself) {
  QuantizationSpec spec;
  spec.double_quantization = true;
  Load(TinyLlama(), spec);
  ASSERT_TRUE(Write(*device_).ok());
  const absl::StatusOr<Checkpoint> entry = OpenForTest(entry_path());
  ASSERT_TRUE(entry.ok()) << entry.status();
  const auto plan = PlanForTest(*entry, kHostTraits);
  NullObserver observer;
  const auto loaded = LoadForTest(*device_, budget_, *entry, plan, observer);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_EQ(plan->tensors.size(), write_.plan->tensors.size());
  for (const PlannedTensor& tensor : write_.plan->tensors) {
    const auto same =
        std::find_if(plan->tensors.begin(), plan->tensors.end(),
                     [&tensor](const PlannedTensor& other) { return other.name == tensor.name; });
    ASSERT_NE(same, plan->tensors.end()) << tensor.name;
    EXPECT_TRUE(LoadedPart(*device_, **loaded, *same, same->parts[0]) ==
                LoadedPart(*device_, *weights_, tensor, tensor.parts[0]))
        << tensor.name;
  }
}

TEST_F(CacheWriterTest, WritesWhatIsReadAlmostWithoutAnythingElse) {
  TinyLlamaShape shape;
  shape.hidden_size = 512;
  shape.intermediate_size = 1024;
  shape.layer_count = 4;
  shape.vocabulary_size = 4096;
  Load(TinyLlama(shape));
  const absl::StatusOr<int64_t> bytes = Write(*device_);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_LE(*bytes, write_.plan->weights_bytes / 100 * 101);
}

TEST_F(CacheWriterTest, NoticesEveryFlippedBit) {
  Load(TinyLlama());
  ASSERT_TRUE(Write(*device_).ok());
  std::mt19937 random(20261124);
  int64_t checked = 0;
  for (const auto& file : std::filesystem::directory_iterator(entry_path())) {
    const std::string content = ReadFile(file.path());
    for (int round = 0; round < 60; ++round) {
      std::string flipped = content;
      char& byte = flipped[random() % flipped.size()];
      byte = static_cast<char>(byte ^ (1 << random() % 8));
      WriteFile(file.path(), flipped);
      EXPECT_TRUE(absl::IsDataLoss(LoadEntry())) << file.path();
      ++checked;
    }
    WriteFile(file.path(), content);
  }
  EXPECT_EQ(checked, 3 * 60) << "config.json, model.safetensors, the manifest";
  EXPECT_TRUE(LoadEntry().ok());
}

TEST_F(CacheWriterTest, LeavesNothingWhenItIsCancelledAtAnyPoint) {
  Load(FusedExperts());
  for (int64_t asked_max = 0;; ++asked_max) {
    int64_t asked = 0;
    const absl::Status status = Write(*device_, [&] { return asked++ >= asked_max; }).status();
    if (status.ok()) {
      EXPECT_GT(asked_max, 20);
      break;
    }
    EXPECT_TRUE(absl::IsCancelled(status)) << status;
    EXPECT_EQ(asked, asked_max + 1) << "it is asked no more once it is told";
    EXPECT_THAT(Left(), IsEmpty());
  }
  EXPECT_TRUE(LoadEntry().ok());
}

TEST_F(CacheWriterTest, LeavesNothingWhicheverDeviceCallFails) {
  QuantizationSpec spec;
  spec.double_quantization = true;
  Load(TinyLlama(), spec);
  FaultyDevice faulty(*device_);
  for (int64_t call = 1;; ++call) {
    faulty.FailCall(call);
    const absl::Status status = Write(faulty).status();
    EXPECT_EQ(faulty.live_objects(), 0);
    EXPECT_EQ(device_->host_bytes(), 0);
    if (!faulty.has_failed()) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    EXPECT_FALSE(status.ok()) << faulty.failed_call();
    EXPECT_THAT(Left(), IsEmpty());
  }
  EXPECT_TRUE(LoadEntry().ok());
}

// A limit of the size of files stands for a disk that is full, at every place where it can be.
TEST_F(CacheWriterTest, LeavesNothingWhenTheDiskIsFull) {
  Load(TinyLlama());
  signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  for (const rlim_t bytes : {0, 1, 100, 5'000, 20'000, 60'000}) {
    const rlimit limit = {bytes, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const absl::Status status = Write(*device_).status();
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(DetailsOf(status).reason, "DISK_FULL");
    EXPECT_THAT(Left(), IsEmpty());
  }
  EXPECT_TRUE(Write(*device_).ok());
  EXPECT_TRUE(LoadEntry().ok());
}

TEST_F(CacheWriterTest, WritesNothingThatDoesNotFit) {
  Load(TinyLlama());
  cache_ = *QuantizedCache::Open(path().string(), {.bytes = 1000});
  lock_.reset();
  lock_.emplace(*cache_->Lock());
  const absl::Status status = Write(*device_).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(DetailsOf(status).reason, "CACHE_FULL");
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(CacheWriterTest, CopiesThroughAFixedBuffer) {
  Load(FusedExperts());
  int64_t host_bytes_max = 0;
  ASSERT_TRUE(Write(*device_, [&] {
                host_bytes_max = std::max(host_bytes_max, device_->host_bytes());
                return false;
              }).ok());
  EXPECT_GT(host_bytes_max, 0);
  EXPECT_LE(host_bytes_max, 16_MiB);
}

}  // namespace
}  // namespace nibble
