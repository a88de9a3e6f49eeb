// The checkpoints that transformers and bitsandbytes wrote, and what is in them by a reader that is
// not ours.

#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/checkpoint.h"
#include "tests/support/golden_tensors.h"
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
