// Checkpoints that bitsandbytes has quantized, whole and broken in one place each.

#include "loader/quantized_tensors.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/checkpoint.h"
#include "tests/support/faulty_directory.h"
#include "tests/support/tiny_quantized.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const char kConfig[] =
    R"({"model_type":"llama","quantization_config":{"quant_method":"bitsandbytes",)"
    R"("load_in_4bit":true,"load_in_8bit":false,"llm_int8_skip_modules":["lm_head"]}})";

// The tensor W of the tests and its side tensors.
const TinyQuantized kPlain = {.name = "W"};
const TinyQuantized kNested = {.name = "W", .shape = {160, 128}, .double_quantized = true};

class QuantizedTensorsTest : public ::testing::Test {
 protected:
  QuantizedTensorsTest() { tiny_.config_json = kConfig; }

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
  void ExpectDataLoss(const std::string& message) const {
    ExpectRefused(absl::StatusCode::kDataLoss, message);
  }

  TinyTensor& Named(absl::string_view name) { return TensorNamed(name, tiny_); }

  void SetState(const TinyQuantized& quantized, const std::string& json) {
    TinyTensor& state = Named(absl::StrCat("W.quant_state.bitsandbytes__", quantized.type));
    state.data = json;
    state.shape = {static_cast<int64_t>(json.size())};
  }

  TinyCheckpoint tiny_;
  ScratchDirectory scratch_;
};

TEST_F(QuantizedTensorsTest, BecomeOneTensorEachInTheirPlace) {
  tiny_.Add("first", {4});
  AddQuantized(kPlain, tiny_);
  tiny_.Add("last", {4});
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->tensors.size(), 3u);
  const CheckpointTensor& tensor = checkpoint->tensors[1];
  EXPECT_EQ(tensor.name, "W");
  EXPECT_EQ(tensor.dtype, Dtype::kBf16);
  EXPECT_THAT(tensor.shape, ElementsAre(64, 64));
  EXPECT_EQ(tensor.bytes, 2048);
  EXPECT_EQ(tensor.file_offset, checkpoint->tensors[0].file_offset + 8);
  ASSERT_TRUE(tensor.quantization.has_value());
  const StoredQuantization& stored = *tensor.quantization;
  EXPECT_EQ(stored.codebook, Codebook::kNf4);
  EXPECT_EQ(stored.block_size, 64);
  EXPECT_EQ(stored.scales.offset, tensor.file_offset + 2048);
  EXPECT_EQ(stored.scales.bytes, 64 * 4);
  EXPECT_FALSE(stored.double_quantized);
  EXPECT_FALSE(checkpoint->tensors[0].quantization.has_value());
  EXPECT_EQ(checkpoint->tensors[2].name, "last");
  EXPECT_TRUE(checkpoint->scale_maps.empty());
}

TEST_F(QuantizedTensorsTest, KeepTheirNestedStatisticsAndShareMaps) {
  AddQuantized(kNested, tiny_);
  TinyQuantized second = kNested;
  second.name = "V";
  second.mean = "-3.5";
  AddQuantized(second, tiny_);
  second.name = "U";
  AddQuantized(second, tiny_);
  Named("U.nested_quant_map").data[3] ^= 1;
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->tensors.size(), 3u);
  // [160, 128] is 320 blocks of 64, whose scales make two blocks of 256.
  const StoredQuantization& stored = *checkpoint->tensors[0].quantization;
  EXPECT_TRUE(stored.double_quantized);
  EXPECT_EQ(stored.scales.bytes, 320);
  EXPECT_EQ(stored.scale_maxima.bytes, 8);
  EXPECT_EQ(stored.scale_maxima.offset, stored.scales.offset + 320 + 16 * 4);
  EXPECT_EQ(stored.scale_mean, 0.25f);
  EXPECT_EQ(checkpoint->tensors[1].quantization->scale_mean, -3.5f);
  ASSERT_EQ(checkpoint->scale_maps.size(), 2u);
  EXPECT_EQ(checkpoint->tensors[1].quantization->scale_map_index, stored.scale_map_index);
  EXPECT_NE(checkpoint->tensors[2].quantization->scale_map_index, stored.scale_map_index);
  const ScaleMap& map = checkpoint->scale_maps[static_cast<size_t>(stored.scale_map_index)];
  EXPECT_EQ(map[0], -127.0f / 128);
  EXPECT_EQ(map[255], 1.0f);
}

TEST_F(QuantizedTensorsTest, MayHaveTheirSidesInOtherShards) {
  TinyQuantized quantized = kNested;
  quantized.side_shard_index = 1;
  tiny_.Add("other", {4}, Dtype::kF32, "", 1);
  AddQuantized(quantized, tiny_);
  quantized = {.name = "V", .shard_index = 1, .side_shard_index = 0};
  AddQuantized(quantized, tiny_);
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->tensors.size(), 3u);
  EXPECT_EQ(checkpoint->tensors[0].name, "W");
  EXPECT_EQ(checkpoint->tensors[0].shard_index, 0);
  EXPECT_EQ(checkpoint->tensors[0].quantization->scales.shard_index, 1);
  EXPECT_EQ(checkpoint->tensors[0].quantization->scale_maxima.shard_index, 1);
  EXPECT_EQ(checkpoint->tensors[2].name, "V");
  EXPECT_EQ(checkpoint->tensors[2].quantization->scales.shard_index, 0);
}

TEST_F(QuantizedTensorsTest, AreKnownWithoutAQuantizationConfig) {
  tiny_.config_json = R"({"model_type":"llama"})";
  AddQuantized(kPlain, tiny_);
  auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->tensors[0].quantization.has_value());
  EXPECT_EQ(checkpoint->config.quantization_method, "bitsandbytes");
}

TEST_F(QuantizedTensorsTest, NeedNotBeThere) {
  tiny_.Add("W", {64, 64}).Add("W.bias", {64});
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensors.size(), 2u);
  EXPECT_FALSE(checkpoint->tensors[0].quantization.has_value());
}

TEST_F(QuantizedTensorsTest, MayBeOfAnyTypeBlockSizeAndStorage) {
  const Dtype storages[] = {Dtype::kU8,  Dtype::kI8,  Dtype::kBf16,
                            Dtype::kF16, Dtype::kF32, Dtype::kF8E4M3};
  for (const Dtype storage : storages) {
    for (const int64_t block_size : {32, 64, 4096}) {
      tiny_.tensors.clear();
      AddQuantized({.name = "W",
                    .shape = {64, 96},
                    .type = "fp4",
                    .block_size = block_size,
                    .dtype = "float16",
                    .storage = storage},
                   tiny_);
      const auto checkpoint = Open();
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      const CheckpointTensor& tensor = checkpoint->tensors[0];
      EXPECT_EQ(tensor.dtype, Dtype::kF16);
      EXPECT_EQ(tensor.bytes, 3072);
      EXPECT_EQ(tensor.quantization->codebook, Codebook::kFp4);
      EXPECT_EQ(tensor.quantization->block_size, block_size);
      EXPECT_EQ(tensor.quantization->scales.bytes, (6144 + block_size - 1) / block_size * 4);
    }
  }
}

TEST_F(QuantizedTensorsTest, MayPadOddCodesToWholeElementsOfTheirStorage) {
  // 5 * 13 = 65 elements: 33 bytes of codes, 36 in F32.
  AddQuantized({.name = "W", .shape = {5, 13}, .storage = Dtype::kF32}, tiny_);
  auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensors[0].bytes, 33);
  EXPECT_EQ(checkpoint->tensors[0].quantization->scales.bytes, 8);

  Named("W").shape = {10, 1};
  Named("W").data = std::string(40, '\0');
  ExpectDataLoss(
      "tensor \"W\": expected 33 bytes of codes for [5, 13] in blocks of 64 as its "
      "quant_state says, found 40");
  Named("W").shape = {8, 1};  // What bitsandbytes writes, which rounds down.
  Named("W").data = std::string(32, '\0');
  ExpectDataLoss("expected 33 bytes of codes");
}

TEST_F(QuantizedTensorsTest, MayHaveARoundedQuantMap) {
  AddQuantized(kPlain, tiny_);
  // NF4 rounded to bf16.
  Named("W.quant_map").data =
      FloatBytes({-1.0f, -0.6953125f, -0.5234375f, -0.39453125f, -0.28515625f, -0.184570312f,
                  -0.0908203125f, 0.0f, 0.0795898438f, 0.161132812f, 0.24609375f, 0.337890625f,
                  0.44140625f, 0.5625f, 0.72265625f, 1.0f});
  EXPECT_TRUE(Open().ok());
  TinyQuantized fp4 = kPlain;
  fp4.type = "fp4";
  tiny_.tensors.clear();
  AddQuantized(fp4, tiny_);
  Named("W.quant_map").data =
      FloatBytes({0.0f, 0.0052f, 0.6667f, 1.0f, 0.3333f, 0.5f, 0.1667f, 0.25f, -0.0f, -0.0052f,
                  -0.6667f, -1.0f, -0.3333f, -0.5f, -0.1667f, -0.25f});
  EXPECT_TRUE(Open().ok());
}

TEST_F(QuantizedTensorsTest, WithAnotherCodebookAreRefused) {
  AddQuantized(kPlain, tiny_);
  const std::string map = Named("W.quant_map").data;
  for (const float value : {0.07f, std::numeric_limits<float>::quiet_NaN()}) {
    Named("W.quant_map").data = map.substr(0, 32) + FloatBytes({value}) + map.substr(36);
    ExpectRefused(absl::StatusCode::kUnimplemented,
                  absl::StrCat("model.safetensors: tensor \"W.quant_map\": expected the values of "
                               "nf4, 0.0795803 for code 8, found ",
                               value));
  }
  // FP4 with its two smallest values exchanged.
  TinyQuantized fp4 = kPlain;
  fp4.type = "fp4";
  tiny_.tensors.clear();
  AddQuantized(fp4, tiny_);
  std::string& data = Named("W.quant_map").data;
  data = data.substr(4, 4) + data.substr(0, 4) + data.substr(8);
  ExpectRefused(absl::StatusCode::kUnimplemented, "for code 0, found 0.00520833");
}

TEST_F(QuantizedTensorsTest, WithASideMissingAreRefusedByName) {
  for (const TinyQuantized& quantized : {kPlain, kNested}) {
    AddQuantized(quantized, tiny_);
    const std::vector<TinyTensor> whole = tiny_.tensors;
    for (const TinyTensor& side : whole) {
      if (side.name == "W" || side.name == "W.nested_absmax") {
        continue;
      }
      tiny_.tensors = whole;
      RemoveTensor(side.name, tiny_);
      ExpectDataLoss(absl::StrCat("model.safetensors: tensor \"W\": expected \"", side.name,
                                  "\" with the rest of its quantization, found none"));
    }
    tiny_.tensors.clear();
  }
  AddQuantized(kNested, tiny_);
  RemoveTensor("W.nested_absmax", tiny_);
  ExpectDataLoss("expected \"W.nested_absmax\" with the rest");
  RemoveTensor("W.nested_quant_map", tiny_);
  ExpectDataLoss("tensor \"W.absmax\": expected F32, found U8");
}

TEST_F(QuantizedTensorsTest, WithoutCodesAreRefused) {
  AddQuantized(kPlain, tiny_);
  RemoveTensor("W", tiny_);
  ExpectDataLoss("tensor \"W.absmax\": expected the tensor \"W\" that it belongs to, found none");
  tiny_.tensors.clear();
  tiny_.Add("V", {4}).Add("W.nested_quant_map", {256}, Dtype::kF32);
  ExpectDataLoss("tensor \"W.nested_quant_map\": expected the tensor \"W\"");
}

TEST_F(QuantizedTensorsTest, WithTwoStatesAreRefused) {
  AddQuantized(kPlain, tiny_);
  tiny_.Add("W.quant_state.bitsandbytes__fp4", {2}, Dtype::kU8, "{}");
  ExpectDataLoss(
      "tensor \"W.quant_state.bitsandbytes__fp4\": expected one quant_state, found "
      "\"W.quant_state.bitsandbytes__nf4\" as well");
}

TEST_F(QuantizedTensorsTest, WithAStateOfAnotherKindAreRefused) {
  AddQuantized(kPlain, tiny_);
  Named("W.quant_state.bitsandbytes__nf4").name = "W.quant_state.bitsandbytes__int8";
  ExpectRefused(absl::StatusCode::kUnimplemented,
                "tensor \"W.quant_state.bitsandbytes__int8\": expected quant_state.");
  Named("W.quant_state.bitsandbytes__int8").name = "W.quant_state.bitsandbytes__fp4";
  ExpectDataLoss(
      "tensor \"W.quant_state.bitsandbytes__fp4\": expected quant_type fp4 as the name says, "
      "found nf4");
}

TEST_F(QuantizedTensorsTest, WithSidesOfUnknownNamesAreRefused) {
  for (const char* name : {"W.scb", "W.absmax2", "W.quant_state", "W.state2.code"}) {
    tiny_.tensors.clear();
    AddQuantized(kPlain, tiny_);
    tiny_.Add(name, {4});
    ExpectDataLoss(absl::StrCat("tensor \"", name, "\": expected absmax, quant_map, quant_state"));
  }
  tiny_.tensors.clear();
  AddQuantized(kPlain, tiny_);
  tiny_.Add("W.absmax.absmax", {4}, Dtype::kF32);
  ExpectDataLoss("tensor \"W.absmax.absmax\": expected no such tensor");
}

TEST_F(QuantizedTensorsTest, WithSidesOfTheWrongLengthAreRefused) {
  for (const TinyQuantized& quantized : {kPlain, kNested}) {
    tiny_.tensors.clear();
    AddQuantized(quantized, tiny_);
    const std::vector<TinyTensor> whole = tiny_.tensors;
    for (const TinyTensor& tensor : whole) {
      if (tensor.name == "W.quant_state.bitsandbytes__nf4") {
        continue;
      }
      for (const int64_t difference : {-1, 1}) {
        tiny_.tensors = whole;
        TinyTensor& changed = Named(tensor.name);
        changed.shape[0] += difference;
        changed.data.clear();
        ExpectDataLoss(absl::StrCat("model.safetensors: tensor \"", tensor.name, "\": expected "));
      }
    }
  }
}

TEST_F(QuantizedTensorsTest, WithSidesOfTheWrongTypeAreRefused) {
  AddQuantized(kNested, tiny_);
  const std::vector<TinyTensor> whole = tiny_.tensors;
  for (const TinyTensor& tensor : whole) {
    if (tensor.name == "W") {
      continue;
    }
    tiny_.tensors = whole;
    Named(tensor.name).dtype = tensor.dtype == Dtype::kU8 ? Dtype::kI8 : Dtype::kI32;
    ExpectDataLoss(absl::StrCat("tensor \"", tensor.name, "\": expected ",
                                tensor.dtype == Dtype::kU8 ? "U8, found I8" : "F32, found I32"));
  }
}

TEST_F(QuantizedTensorsTest, WithJsonThatLiesAboutTheShapeAreRefused) {
  TinyQuantized lie = kPlain;
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{64, 65}, {63, 64}, {1, 1}, {int64_t{1} << 30, int64_t{1} << 30}}) {
    tiny_.tensors.clear();
    AddQuantized(kPlain, tiny_);
    lie.shape = shape;
    SetState(kPlain, QuantStateJson(lie));
    ExpectDataLoss(absl::StrCat("tensor \"W\": expected ", (shape[0] * shape[1] + 1) / 2,
                                " bytes of codes for [", shape[0], ", ", shape[1], "]"));
  }
  tiny_.tensors.clear();
  AddQuantized(kPlain, tiny_);
  lie.shape = {4096};  // As many elements: nothing here can tell.
  SetState(kPlain, QuantStateJson(lie));
  EXPECT_TRUE(Open().ok());
}

TEST_F(QuantizedTensorsTest, WithJsonThatLiesAboutTheBlocksAreRefused) {
  AddQuantized(kNested, tiny_);
  TinyQuantized lie = kNested;
  lie.block_size = 128;
  SetState(kNested, QuantStateJson(lie));
  ExpectDataLoss(
      "tensor \"W.absmax\": expected 160 bytes for [160, 128] in blocks of 128 as its "
      "quant_state says, found 320");
  lie.block_size = 48;
  SetState(kNested, QuantStateJson(lie));
  ExpectDataLoss(
      "tensor \"W.quant_state.bitsandbytes__nf4\": at byte 37: blocksize: expected a "
      "power of two from 32 to 4096, found 48");
}

TEST_F(QuantizedTensorsTest, WithNestedStatisticsOnOneSideOnlyAreRefused) {
  AddQuantized(kNested, tiny_);
  SetState(kNested, QuantStateJson({.shape = kNested.shape}));
  ExpectDataLoss("expected nested_blocksize, nested_dtype and nested_offset as there is a");
  tiny_.tensors.clear();
  AddQuantized(kPlain, tiny_);
  SetState(kPlain, QuantStateJson({.double_quantized = true}));
  ExpectDataLoss("expected no nested_blocksize, nested_dtype and nested_offset as there is no");
}

TEST_F(QuantizedTensorsTest, WithANestedMapThatIsNotFiniteAreRefused) {
  AddQuantized(kNested, tiny_);
  const std::string map = Named("W.nested_quant_map").data;
  for (const float value : {std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(), std::nanf("")}) {
    Named("W.nested_quant_map").data = map.substr(0, 1020) + FloatBytes({value});
    ExpectDataLoss(absl::StrCat("tensor \"W.nested_quant_map\": expected finite values, found ",
                                value, " for code 255"));
  }
}

TEST_F(QuantizedTensorsTest, WithALongStateAreRefusedBeforeItIsRead) {
  AddQuantized(kPlain, tiny_);
  SetState(kPlain, std::string(65'537, ' '));
  ExpectDataLoss("expected at most 65536 bytes, found 65537");
}

TEST_F(QuantizedTensorsTest, MayNotHaveMapsWithoutEnd) {
  for (int i = 0; i <= kScaleMapsMax; ++i) {
    const std::string name = absl::StrCat("W", i);
    AddQuantized({.name = name, .shape = {64}, .double_quantized = true}, tiny_);
    std::string& map = tiny_.tensors[tiny_.tensors.size() - 2].data;
    map = FloatBytes({static_cast<float>(i)}) + map.substr(4);
  }
  ExpectRefused(absl::StatusCode::kUnimplemented, "expected at most 1024 different maps");
}

TEST_F(QuantizedTensorsTest, FailCleanlyWhereverAFileFails) {
  TinyQuantized quantized = kNested;
  quantized.side_shard_index = 1;
  AddQuantized(quantized, tiny_);
  tiny_.Write(scratch_.path() / "model");
  const auto directory = OpenCheckpointDirectory(scratch_.path().string(), "model");
  ASSERT_TRUE(directory.ok());
  for (int64_t call = 0;; ++call) {
    ASSERT_LT(call, 100);
    const auto faulty = std::make_shared<FaultyDirectory>(*directory, call);
    const auto checkpoint = OpenCheckpoint(faulty);
    if (faulty->call_count() <= call) {
      EXPECT_TRUE(checkpoint.ok());
      EXPECT_GT(call, 16);
      break;
    }
    EXPECT_EQ(checkpoint.status().message(), "injected: the disk failed") << call;
  }
}

}  // namespace
}  // namespace nibble
