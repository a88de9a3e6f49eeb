#include "loader/cache_key.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "loader/checksum.h"
#include "nlohmann/json.hpp"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

class CacheKeyTest : public testing::Test {
 protected:
  using Change = std::function<void(QuantizationSpec&)>;

  static QuantizationSpec Spec(const Change& change) {
    QuantizationSpec spec;
    change(spec);
    return spec;
  }

  CacheKey KeyOf(const Change& change) { return KeyOf(Spec(change)); }

  CacheKey KeyOf(const QuantizationSpec& spec = {}, const DeviceTraits& traits = kHostTraits) {
    const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch_.path());
    Check(checkpoint.ok(), checkpoint.status().ToString().c_str());
    return MakeCacheKey(*checkpoint, *PlanForTest(*checkpoint, traits, spec));
  }

  ScratchDirectory scratch_;
};

TEST_F(CacheKeyTest, IsOneLineOfJsonThatNamesItsEntry) {
  TinyLlama({.shard_count = 2}).Write(scratch_.path());
  const Checkpoint checkpoint = *OpenForTest(scratch_.path());
  LoadPlan plan = *PlanForTest(checkpoint, kHostTraits);
  plan.quantization.keep = {"*\"\n*norm*"};
  const CacheKey key = MakeCacheKey(checkpoint, plan);
  EXPECT_EQ(key.text.find('\n'), key.text.npos);
  const nlohmann::json json = nlohmann::json::parse(key.text);
  EXPECT_EQ(json["shards"].size(), 2);
  EXPECT_EQ(json["shards"][1]["bytes"],
            std::filesystem::file_size(scratch_.path() / "model-00002-of-00002.safetensors"));
  EXPECT_EQ(json["config"], Digest(ReadFile(scratch_.path() / "config.json")));
  EXPECT_EQ(json["quantization"]["keep"][0], "*\"\n*norm*");
  EXPECT_TRUE(IsDigest(key.entry_name));
  EXPECT_EQ(key.entry_name, Digest(key.text));
}

TEST_F(CacheKeyTest, IsEqualForTheSameLoadWhateverServesIt) {
  TinyLlama().Write(scratch_.path());
  const CacheKey key = KeyOf();
  EXPECT_EQ(KeyOf().text, key.text);
  EXPECT_EQ(KeyOf([](auto& spec) { spec.min_quantized_ratio = 0.5; }).text, key.text)
      << "it decides no byte";

  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch_.path());
  const absl::StatusOr<LoadPlan> plan =
      MakeLoadPlan(*checkpoint, {}, {.max_sequences = 3, .weights_only = true}, kHostTraits, 7_MiB);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(MakeCacheKey(*checkpoint, *plan).text, key.text);
}

TEST_F(CacheKeyTest, DiffersWhereAnyByteOfTheWeightsMay) {
  TinyLlama().Write(scratch_.path());
  std::set<std::string> names = {KeyOf().entry_name};
  const auto expect_new = [&names](const CacheKey& key, const char* what) {
    EXPECT_TRUE(names.insert(key.entry_name).second) << what;
  };
  expect_new(KeyOf([](auto& spec) { spec.format = Format::kFp4; }), "format");
  expect_new(KeyOf([](auto& spec) { spec.block_size = 128; }), "block size");
  expect_new(KeyOf([](auto& spec) { spec.keep = {"*q_proj*"}; }), "keep");
  expect_new(KeyOf([](auto& spec) { spec.quantize = {"lm_head*"}; }), "quantize");
  expect_new(KeyOf([](auto& spec) { spec.allow_non_finite = true; }), "allow_non_finite");

  const std::filesystem::path shard = scratch_.path() / "model.safetensors";
  std::filesystem::last_write_time(
      shard, std::filesystem::last_write_time(shard) + std::chrono::nanoseconds(1));
  expect_new(KeyOf(), "a later time of modification");
  const std::string content = ReadFile(shard);
  std::filesystem::rename(shard, scratch_.path() / "moved");
  WriteFile(shard, content);
  expect_new(KeyOf(), "another inode");
  WriteFile(scratch_.path() / "config.json", ReadFile(scratch_.path() / "config.json") + " ");
  expect_new(KeyOf(), "the text of config.json");
}

// The identity of a file is not all: two checkpoints could differ in their headers alone.
TEST_F(CacheKeyTest, DiffersWithAHeaderAndWithWhatThePlanMakesOfIt) {
  TinyLlama().Write(scratch_.path());
  Checkpoint checkpoint = *OpenForTest(scratch_.path());
  LoadPlan plan = *PlanForTest(checkpoint, kHostTraits);
  const CacheKey key = MakeCacheKey(checkpoint, plan);
  std::set<std::string> names = {key.entry_name};
  const auto expect_new = [&names](const CacheKey& changed, const char* what) {
    EXPECT_TRUE(names.insert(changed.entry_name).second) << what;
  };

  checkpoint.shards[0].header_digest[0] ^= 1;
  expect_new(MakeCacheKey(checkpoint, plan), "header");
  checkpoint.shards[0].header_digest[0] ^= 1;

  const std::pair<const char*, std::function<void(PlannedTensor&)>> changes[] = {
      {"name", [](PlannedTensor& tensor) { tensor.name += "x"; }},
      {"format", [](PlannedTensor& tensor) { tensor.format = Format::kFp4; }},
      {"block size", [](PlannedTensor& tensor) { tensor.block_size *= 2; }},
      {"scales", [](PlannedTensor& tensor) { tensor.double_quantized = true; }},
      {"dtype", [](PlannedTensor& tensor) { tensor.source_dtype = Dtype::kF16; }},
      {"shape", [](PlannedTensor& tensor) { tensor.shape[0] += 1; }},
      {"place", [](PlannedTensor& tensor) { tensor.parts[0].planes[0].file_offset += 64; }},
      {"part", [](PlannedTensor& tensor) { tensor.parts[0].element_count += 1; }},
  };
  for (const auto& [what, change] : changes) {
    LoadPlan changed = plan;
    const auto quantized =
        std::find_if(changed.tensors.begin(), changed.tensors.end(),
                     [](const PlannedTensor& tensor) { return tensor.quantized(); });
    change(*quantized);
    expect_new(MakeCacheKey(checkpoint, changed), what);
  }
  EXPECT_EQ(MakeCacheKey(checkpoint, plan).text, key.text);
}

TEST_F(CacheKeyTest, IsSharedByDevicesThatGiveEqualBytes) {
  TinyLlama().Write(scratch_.path());
  EXPECT_EQ(KeyOf(QuantizationSpec(), kHostTraits).text,
            KeyOf(QuantizationSpec(), kCudaTraits).text);
  TinyLlama({.dtype = Dtype::kF32}).Write(scratch_.path());
  EXPECT_NE(KeyOf(QuantizationSpec(), kHostTraits).text,
            KeyOf(QuantizationSpec(), kCudaTraits).text)
      << "the reciprocal of fp32 scales may differ in its last bit";
}

TEST_F(CacheKeyTest, OnlyLoadsThatQuantizeAreCached) {
  TinyLlama().Write(scratch_.path());
  const absl::StatusOr<Checkpoint> checkpoint = OpenForTest(scratch_.path());
  EXPECT_TRUE(IsCacheable(*PlanForTest(*checkpoint, kHostTraits)));
  EXPECT_FALSE(IsCacheable(*PlanForTest(
      *checkpoint, kHostTraits, Spec([](auto& spec) { spec.format = Format::kAsStored; }))));
  LoadPlan plan = *PlanForTest(*checkpoint, kHostTraits);
  for (PlannedTensor& tensor : plan.tensors) {
    tensor.form = tensor.quantized() ? SourceForm::kFourBit : tensor.form;
  }
  EXPECT_FALSE(IsCacheable(plan)) << "the source is in 4 bits itself";
  plan = *PlanForTest(*checkpoint, kHostTraits);
  plan.quantization.error_stats = true;
  EXPECT_FALSE(IsCacheable(plan)) << "errors are measured against the source";
}

}  // namespace
}  // namespace nibble
