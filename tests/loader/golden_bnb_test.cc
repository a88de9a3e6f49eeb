// The checkpoints that transformers and bitsandbytes wrote, and what is in them by a reader that is
// not ours.

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "loader/checkpoint.h"
#include "tests/support/golden_tensors.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct GoldenCheckpoint {
  const char* name;
  int quantized_count;
  bool double_quantized;
  const char* quant_type;
};

class GoldenBnbTest : public ::testing::TestWithParam<GoldenCheckpoint> {
 protected:
  GoldenBnbTest()
      : path_(absl::StrCat(NIBBLE_TEST_DATA "/bnb_checkpoints/", GetParam().name)),
        golden_(path_ + "/model.safetensors"),
        file_(ReadFile(path_ + "/model.safetensors")) {
    const auto directory =
        OpenCheckpointDirectory(NIBBLE_TEST_DATA "/bnb_checkpoints", GetParam().name);
    checkpoint_ = directory.ok() ? OpenCheckpoint(*directory) : directory.status();
  }

  absl::string_view Bytes(const FileRange& range) const {
    return absl::string_view(file_).substr(static_cast<size_t>(range.offset),
                                           static_cast<size_t>(range.bytes));
  }
  absl::string_view Golden(const std::string& name) const {
    const auto bytes = golden_.at(name).bytes;
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  const std::string path_;
  const GoldenTensors golden_;
  const std::string file_;
  absl::StatusOr<Checkpoint> checkpoint_ = absl::UnknownError("");
};

TEST_P(GoldenBnbTest, OpensWithTheFormatsAndPlacesThatAreInTheFile) {
  ASSERT_TRUE(checkpoint_.ok()) << checkpoint_.status();
  EXPECT_THAT(checkpoint_->warnings, ElementsAre(HasSubstr("expected.safetensors")));
  EXPECT_EQ(checkpoint_->config.quantization_method, "bitsandbytes");
  int quantized_count = 0;
  for (const CheckpointTensor& tensor : checkpoint_->tensors) {
    EXPECT_EQ(Bytes({0, tensor.file_offset, tensor.bytes}), Golden(tensor.name)) << tensor.name;
    EXPECT_EQ(tensor.dtype, Dtype::kBf16) << tensor.name;
    if (!tensor.quantization.has_value()) {
      continue;
    }
    ++quantized_count;
    const StoredQuantization& stored = *tensor.quantization;
    const auto state = nlohmann::json::parse(
        Golden(absl::StrCat(tensor.name, ".quant_state.bitsandbytes__", GetParam().quant_type)));
    EXPECT_EQ(tensor.shape, state["shape"].get<std::vector<int64_t>>()) << tensor.name;
    EXPECT_EQ(stored.block_size, state["blocksize"].get<int64_t>());
    EXPECT_EQ(stored.codebook == Codebook::kFp4, state["quant_type"] == "fp4");
    EXPECT_EQ(Bytes(stored.scales), Golden(tensor.name + ".absmax"));
    ASSERT_EQ(stored.double_quantized, GetParam().double_quantized);
    if (stored.double_quantized) {
      EXPECT_EQ(Bytes(stored.scale_maxima), Golden(tensor.name + ".nested_absmax"));
      EXPECT_EQ(stored.scale_mean, static_cast<float>(state["nested_offset"].get<double>()));
      const ScaleMap& map = checkpoint_->scale_maps[static_cast<size_t>(stored.scale_map_index)];
      EXPECT_THAT(map, ::testing::ElementsAreArray(
                           golden_.at(tensor.name + ".nested_quant_map").As<float>()));
    }
  }
  EXPECT_EQ(quantized_count, GetParam().quantized_count);
  EXPECT_EQ(checkpoint_->scale_maps.size(), GetParam().double_quantized ? 1u : 0u);
}

std::string TextOf(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The weights as bitsandbytes' kernels compute them from the tensors in the file, in fp32: formats
// that differ in one bit of a scale differ here.
std::vector<float> DequantizedByHand(const GoldenTensors& golden, const std::string& name,
                                     bool double_quantized, double offset, int64_t count) {
  const auto codes = golden.at(name).As<uint8_t>();
  const auto map = golden.at(name + ".quant_map").As<float>();
  std::vector<float> scales;
  if (double_quantized) {
    const auto scale_map = golden.at(name + ".nested_quant_map").As<float>();
    const auto maxima = golden.at(name + ".nested_absmax").As<float>();
    for (const uint8_t code : golden.at(name + ".absmax").As<uint8_t>()) {
      const float product = scale_map[code] * maxima[scales.size() / 256];
      scales.push_back(product + static_cast<float>(offset));
    }
  } else {
    scales = golden.at(name + ".absmax").As<float>();
  }
  std::vector<float> values;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    values.push_back(map[codes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 0xf] * scales[i / 64]);
  }
  return values;
}

// The same by the device's own operations on what was loaded.
std::vector<float> DequantizedByTheDevice(Device& device, const Weights& weights,
                                          const PlannedTensor& tensor) {
  const PlannedPart& part = tensor.parts[0];
  const int64_t count = part.element_count;
  const int64_t scale_count = BlockCount(count, tensor.block_size);
  const auto queue = device.NewQueue();
  const auto memory = device.Allocate(RoundUp(RoundUp(scale_count * 4, 256) + count * 4, 4_KiB));
  Check(queue.ok() && memory.ok(), "a queue and memory");
  DeviceSpan scales = weights.plane(tensor, part, Plane::kScales);
  absl::Status status;
  if (tensor.double_quantized) {
    const DeviceSpan codes = scales;
    scales = memory->Slice(0, scale_count * 4);
    status = device.ops().DequantizeScales(
        **queue, {.scale_count = scale_count,
                  .scale_codes = codes,
                  .absmax2 = weights.plane(tensor, part, Plane::kScaleMaxima),
                  .offset = weights.scale_mean(part),
                  .map = weights.scale_map(tensor),
                  .scales = scales});
  }
  const DeviceSpan target = memory->Slice(RoundUp(scale_count * 4, 256), count * 4);
  status.Update(
      device.ops().Dequantize(**queue, {.codebook = CodebookOf(tensor.format),
                                        .block_size = tensor.block_size,
                                        .target_type = FloatType::kF32,
                                        .element_count = count,
                                        .codes = weights.plane(tensor, part, Plane::kData),
                                        .scales = scales,
                                        .target = target}));
  std::vector<float> values(static_cast<size_t>(count));
  status.Update((*queue)->CopyToHost(target, std::as_writable_bytes(std::span(values))));
  status.Update((*queue)->Synchronize());
  Check(status.ok(), status.ToString().c_str());
  device.Free(*memory);
  return values;
}

TEST_P(GoldenBnbTest, LoadsWhatIsInFourBitsAsItIs) {
  ASSERT_TRUE(checkpoint_.ok()) << checkpoint_.status();
  const std::unique_ptr<Device> device = OpenHostDevice(64_MiB);
  const auto plan = PlanForTest(*checkpoint_, kHostTraits);
  VramBudget budget(plan->peak_bytes());
  NullObserver observer;
  const auto weights = LoadForTest(*device, budget, *checkpoint_, plan, observer, 3);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ((*weights)->allocated_peak_bytes(), plan->peak_bytes());
  int stored_count = 0;
  for (const PlannedTensor& tensor : plan->tensors) {
    if (tensor.form != SourceForm::kFourBit) {
      continue;
    }
    ++stored_count;
    PartBytes loaded = LoadedPart(*device, **weights, tensor, tensor.parts[0]);
    EXPECT_EQ(TextOf(loaded[Plane::kData]), Golden(tensor.name)) << tensor.name;
    EXPECT_EQ(TextOf(loaded[Plane::kScales]), Golden(tensor.name + ".absmax")) << tensor.name;
    if (GetParam().double_quantized) {
      EXPECT_EQ(TextOf(loaded[Plane::kScaleMaxima]), Golden(tensor.name + ".nested_absmax"));
    }
    const auto state = nlohmann::json::parse(
        Golden(absl::StrCat(tensor.name, ".quant_state.bitsandbytes__", GetParam().quant_type)));
    const std::vector<float> expected =
        DequantizedByHand(golden_, tensor.name, GetParam().double_quantized,
                          state.value("nested_offset", 0.0), tensor.parts[0].element_count);
    EXPECT_TRUE(DequantizedByTheDevice(*device, **weights, tensor) == expected) << tensor.name;
  }
  EXPECT_EQ(stored_count, GetParam().quantized_count);
}

TEST(GoldenBnbRestTest, ExpertsThatWereLeftIn16BitsAreQuantizedAndSaidSoOrKept) {
  const auto checkpoint =
      OpenForTest(std::filesystem::path(NIBBLE_TEST_DATA) / "bnb_checkpoints" / "mixtral_nf4");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  QuantizationSpec spec;
  const auto quantized = PlanForTest(*checkpoint, kHostTraits, spec);
  EXPECT_THAT(quantized->warnings, ::testing::Contains(HasSubstr("in 4 bits only in part")));
  spec.keep_unquantized_rest = true;
  const auto kept = PlanForTest(*checkpoint, kHostTraits, spec);
  int expert_count = 0;
  for (size_t index = 0; index < kept->tensors.size(); ++index) {
    if (absl::StrContains(kept->tensors[index].name, "experts")) {
      ++expert_count;
      EXPECT_EQ(quantized->tensors[index].format, Format::kNf4);
      EXPECT_EQ(kept->tensors[index].format, Format::kAsStored);
      EXPECT_THAT(kept->tensors[index].reason, HasSubstr("keep_unquantized_rest"));
    }
  }
  EXPECT_GT(expert_count, 0);
}

// 7 linear layers in each of 2 decoder layers; Mixtral's 4 of attention alone.
INSTANTIATE_TEST_SUITE_P(Files, GoldenBnbTest,
                         ::testing::Values(GoldenCheckpoint{"llama_nf4", 14, false, "nf4"},
                                           GoldenCheckpoint{"llama_nf4_dq", 14, true, "nf4"},
                                           GoldenCheckpoint{"llama_fp4", 14, false, "fp4"},
                                           GoldenCheckpoint{"mixtral_nf4", 8, false, "nf4"},
                                           GoldenCheckpoint{"qwen2_nf4_dq", 14, true, "nf4"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace nibble
