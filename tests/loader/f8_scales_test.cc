// Tensors of 8-bit floats and their scales, as quant_method "fp8" stores them.

#include "loader/f8_scales.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/checkpoint.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Config(const std::string& block_size) {
  return absl::StrCat(R"({"model_type":"qwen3","quantization_config":{"quant_method":"fp8",)",
                      R"("activation_scheme":"dynamic","weight_block_size":)", block_size, "}}");
}

class F8ScalesTest : public ::testing::Test {
 protected:
  F8ScalesTest() { tiny_.config_json = Config("[128, 128]"); }

  absl::StatusOr<Checkpoint> Open() const {
    tiny_.Write(scratch_.path() / "model");
    auto directory = OpenCheckpointDirectory(scratch_.path().string(), "model");
    return directory.ok() ? OpenCheckpoint(*directory) : directory.status();
  }

  void ExpectRefused(absl::StatusCode code, const std::string& message) const {
    const auto checkpoint = Open();
    EXPECT_EQ(checkpoint.status().code(), code) << checkpoint.status();
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(message));
  }

  // Opens a checkpoint of "P.weight" and one of its scales, and expects blocks of that size.
  void ExpectBlocks(const std::vector<int64_t>& shape, const std::vector<int64_t>& scale_shape,
                    int64_t block_rows, int64_t block_columns) {
    SCOPED_TRACE(absl::StrCat(shape.size(), "-D, scales ", scale_shape.size(), "-D"));
    tiny_.tensors.clear();
    tiny_.Add("P.weight", shape, Dtype::kF8E4M3);
    tiny_.Add("P.weight_scale_inv", scale_shape, Dtype::kF32);
    const auto checkpoint = Open();
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ASSERT_EQ(checkpoint->tensors.size(), 1u);
    ASSERT_TRUE(checkpoint->tensors[0].f8_scale.has_value());
    EXPECT_EQ(checkpoint->tensors[0].f8_scale->block_rows, block_rows);
    EXPECT_EQ(checkpoint->tensors[0].f8_scale->block_columns, block_columns);
  }

  TinyCheckpoint tiny_;
  ScratchDirectory scratch_;
};

TEST_F(F8ScalesTest, AreWithinTheTensorThatTheyBelongTo) {
  tiny_.Add("norm.weight", {4});
  tiny_.Add("P.weight_scale_inv", {2, 3}, Dtype::kBf16, "", 1);
  tiny_.Add("P.weight", {200, 300}, Dtype::kF8E4M3);
  tiny_.Add("Q.weight", {128, 128}, Dtype::kBf16);
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->tensors.size(), 3u);
  const CheckpointTensor& tensor = checkpoint->tensors[1];
  EXPECT_EQ(tensor.name, "P.weight");
  EXPECT_EQ(tensor.dtype, Dtype::kF8E4M3);
  EXPECT_EQ(tensor.bytes, 60'000);
  ASSERT_TRUE(tensor.f8_scale.has_value());
  EXPECT_EQ(tensor.f8_scale->scales.shard_index, 1);
  EXPECT_EQ(tensor.f8_scale->scales.bytes, 2 * 3 * 2);
  EXPECT_EQ(tensor.f8_scale->scale_type, FloatType::kBf16);
  EXPECT_EQ(tensor.f8_scale->block_rows, 128);
  EXPECT_EQ(tensor.f8_scale->block_columns, 128);
  EXPECT_FALSE(checkpoint->tensors[2].f8_scale.has_value());
}

TEST_F(F8ScalesTest, MayBeOfBlocksOfATensorOrOfARow) {
  ExpectBlocks({200, 300}, {2, 3}, 128, 128);
  ExpectBlocks({128, 128}, {1, 1}, 128, 128);
  ExpectBlocks({200, 300}, {}, 200, 300);
  ExpectBlocks({200, 300}, {1}, 200, 300);
  ExpectBlocks({200, 300}, {1, 1}, 200, 300);
  ExpectBlocks({200, 300}, {200}, 1, 300);
  ExpectBlocks({200, 300}, {200, 1}, 1, 300);
  ExpectBlocks({1, 300}, {1}, 1, 300);
  tiny_.config_json = Config("[64, 32]");
  ExpectBlocks({200, 300}, {4, 10}, 64, 32);
  tiny_.config_json = Config("null");
  ExpectBlocks({200, 300}, {}, 200, 300);
  // Without weight_block_size it is transformers' default.
  tiny_.config_json = R"({"model_type":"x","quantization_config":{"quant_method":"fp8"}})";
  ExpectBlocks({200, 300}, {2, 3}, 128, 128);
}

TEST_F(F8ScalesTest, OfFusedExpertsAreOfEachExpert) {
  ExpectBlocks({4, 256, 300}, {4, 2, 3}, 128, 128);
  ExpectBlocks({4, 64, 32}, {4, 1, 1}, 64, 32);
  ExpectBlocks({4, 200, 300}, {4, 1, 1}, 200, 300);
  ExpectBlocks({4, 200, 300}, {4}, 200, 300);
  ExpectBlocks({4, 200, 300}, {4, 200, 1}, 1, 300);
}

TEST_F(F8ScalesTest, MayNotReachFromOneExpertIntoTheNext) {
  tiny_.Add("P.up", {4, 200, 300}, Dtype::kF8E4M3);
  tiny_.Add("P.up_scale_inv", {4, 2, 3}, Dtype::kF32);
  ExpectRefused(absl::StatusCode::kUnimplemented,
                "tensor \"P.up\": expected the rows of an expert to be whole blocks of 128, found "
                "[4, 200, 300]");
}

TEST_F(F8ScalesTest, MayHaveAnotherNameOrTypeAndNoLayer) {
  const Dtype types[] = {Dtype::kF32, Dtype::kF16, Dtype::kBf16};
  const FloatType expected[] = {FloatType::kF32, FloatType::kF16, FloatType::kBf16};
  for (int i = 0; i < 3; ++i) {
    tiny_.tensors.clear();
    tiny_.Add("experts.gate_up_proj", {2, 64, 32}, Dtype::kF8E5M2);
    tiny_.Add("experts.gate_up_proj_scale", {2, 1, 1}, types[i]);
    const auto checkpoint = Open();
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ASSERT_EQ(checkpoint->tensors.size(), 1u);
    EXPECT_EQ(checkpoint->tensors[0].f8_scale->scale_type, expected[i]);
  }
}

TEST_F(F8ScalesTest, OfActivationsAreLeftOut) {
  tiny_.Add("P.weight", {64, 32}, Dtype::kF8E4M3).Add("P.weight_scale", {}, Dtype::kF32);
  tiny_.Add("P.input_scale", {}, Dtype::kF32).Add("P.activation_scale", {}, Dtype::kBf16);
  tiny_.Add("P.output_scale", {1}, Dtype::kF32).Add("P.bias", {64});
  tiny_.Add("E.up", {2, 64, 32}, Dtype::kF8E4M3).Add("E.up_scale_inv", {2}, Dtype::kF32);
  tiny_.Add("E.up_activation_scale", {2}, Dtype::kF32);
  tiny_.Add("Q.weight", {64, 32}).Add("Q.input_scale", {}, Dtype::kF32);
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<std::string> names;
  for (const CheckpointTensor& tensor : checkpoint->tensors) {
    names.push_back(tensor.name);
  }
  EXPECT_THAT(names,
              ::testing::ElementsAre("P.weight", "P.bias", "E.up", "Q.weight", "Q.input_scale"));
}

TEST_F(F8ScalesTest, OfEmptyTensorsAreRefused) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{0, 300}, {kMax, 0}, {0, kMax}, {0, 4, 4}}) {
    tiny_.tensors.clear();
    tiny_.Add("P.weight", shape, Dtype::kF8E4M3).Add("P.weight_scale", {}, Dtype::kF32);
    ExpectRefused(absl::StatusCode::kDataLoss, "tensor \"P.weight\": expected elements, found [");
  }
}

TEST_F(F8ScalesTest, AreMissedByName) {
  tiny_.Add("P.weight", {64, 32}, Dtype::kF8E4M3);
  ExpectRefused(absl::StatusCode::kUnimplemented,
                "model.safetensors: tensor \"P.weight\": expected its scales as "
                "\"P.weight_scale_inv\" or \"P.weight_scale\", found none");
}

TEST_F(F8ScalesTest, AreNotGuessedWithoutTheMethod) {
  tiny_.Add("P.weight", {64, 32}, Dtype::kF8E4M3).Add("P.weight_scale", {}, Dtype::kF32);
  tiny_.config_json = R"({"model_type":"qwen3"})";
  ExpectRefused(absl::StatusCode::kUnimplemented,
                "tensor \"P.weight\": expected quantization_config.quant_method fp8 in config.json "
                "beside F8_E4M3, found none");
}

TEST_F(F8ScalesTest, OfTheWrongShapeAreRefused) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{3, 2},
                                            {2, 2},
                                            {2, 3, 1},
                                            {300},
                                            {1, 300},
                                            {1, 200},
                                            {2},
                                            {0},
                                            {6},
                                            {1, 1, 1}}) {
    tiny_.tensors.clear();
    tiny_.Add("P.weight", {200, 300}, Dtype::kF8E4M3);
    tiny_.Add("P.weight_scale_inv", shape, Dtype::kF32);
    ExpectRefused(absl::StatusCode::kDataLoss,
                  "tensor \"P.weight_scale_inv\": expected scales for [200, 300] by block "
                  "(weight_block_size [128, 128]), by tensor or by row, found [");
  }
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{}, {1}, {3, 2, 3}, {2, 3}, {4, 2}, {4, 2, 3, 1}, {4, 2, 1}}) {
    tiny_.tensors.clear();
    tiny_.Add("P.weight", {4, 200, 300}, Dtype::kF8E4M3);
    tiny_.Add("P.weight_scale_inv", shape, Dtype::kF32);
    ExpectRefused(absl::StatusCode::kDataLoss, "tensor \"P.weight_scale_inv\": expected scales ");
  }
}

TEST_F(F8ScalesTest, NeedWeightBlockSizeToBeOfBlocks) {
  tiny_.config_json = Config("null");
  tiny_.Add("P.weight", {200, 300}, Dtype::kF8E4M3);
  tiny_.Add("P.weight_scale_inv", {2, 3}, Dtype::kF32);
  ExpectRefused(absl::StatusCode::kDataLoss, "by tensor or by row, found [2, 3]");
}

TEST_F(F8ScalesTest, OfTheWrongTypeAreRefused) {
  for (const Dtype dtype : {Dtype::kF8E8M0, Dtype::kF8E4M3, Dtype::kU8, Dtype::kF64}) {
    tiny_.tensors.clear();
    tiny_.Add("P.weight", {64, 32}, Dtype::kF8E4M3).Add("P.weight_scale_inv", {1, 1}, dtype);
    ExpectRefused(absl::StatusCode::kUnimplemented,
                  absl::StrCat("tensor \"P.weight_scale_inv\": expected scales in F32, F16 or "
                               "BF16, found ",
                               DtypeName(dtype)));
  }
}

TEST_F(F8ScalesTest, MayNotStandTwice) {
  tiny_.Add("P.weight", {64, 32}, Dtype::kF8E4M3);
  tiny_.Add("P.weight_scale", {}, Dtype::kF32).Add("P.weight_scale_inv", {1, 1}, Dtype::kF32);
  ExpectRefused(absl::StatusCode::kDataLoss, "expected one tensor of scales, found ");
}

TEST_F(F8ScalesTest, MayNotStandAlone) {
  for (const char* name : {"P.weight_scale_inv", "P.weight_scale", "P.up_scale_inv"}) {
    tiny_.tensors.clear();
    tiny_.Add("P.weight", {64, 32}).Add(name, {}, Dtype::kF32);
    ExpectRefused(absl::StatusCode::kDataLoss,
                  absl::StrCat("tensor \"", name, "\": expected the tensor \"P."));
  }
  tiny_.tensors.clear();
  tiny_.Add("P.weight", {64, 32}).Add("P.weight_scale", {}, Dtype::kF32);
  ExpectRefused(absl::StatusCode::kDataLoss, "that it scales in 8-bit floats, found BF16");
}

TEST_F(F8ScalesTest, OfOtherKindsOf8BitFloatsAreRefusedByName) {
  for (const Dtype dtype : {Dtype::kF8E4M3Fnuz, Dtype::kF8E5M2Fnuz}) {
    tiny_.tensors.clear();
    tiny_.Add("P.weight", {64, 32}, dtype).Add("P.weight_scale", {}, Dtype::kF32);
    ExpectRefused(absl::StatusCode::kUnimplemented,
                  absl::StrCat("tensor \"P.weight\": expected F8_E4M3 or F8_E5M2 of all 8-bit "
                               "floats, found ",
                               DtypeName(dtype)));
  }
}

TEST_F(F8ScalesTest, OfVectorsAndHigherTensorsAreRefused) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, {64}, {2, 2, 2, 2}}) {
    tiny_.tensors.clear();
    tiny_.Add("P.weight", shape, Dtype::kF8E4M3).Add("P.weight_scale", {}, Dtype::kF32);
    ExpectRefused(absl::StatusCode::kUnimplemented, "tensor \"P.weight\": expected a matrix");
  }
}

}  // namespace
}  // namespace nibble
