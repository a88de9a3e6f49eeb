// Double-quantized tensors against those of bitsandbytes' CUDA kernels.

#include <cfloat>
#include <fstream>

#include "nlohmann/json.hpp"
#include "tests/kernels/scale_fixture.h"
#include "tests/support/golden_tensors.h"

namespace nibble {
namespace {

class GoldenDoubleQuantTest : public ScaleTest {};
INSTANTIATE_TEST_SUITE_P(Host, GoldenDoubleQuantTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, GoldenDoubleQuantTest, testing::ValuesIn(CudaDevices()),
                         DeviceTestName);

struct GoldenCase {
  std::string name;
  BlockCase input;
  std::vector<uint8_t> codes;
  ScalePlanes scales;
  float offset = 0;
  std::vector<std::byte> dequantized;
};

FloatType TypeOf(const std::string& dtype) {
  return dtype == "bfloat16"  ? FloatType::kBf16
         : dtype == "float16" ? FloatType::kF16
                              : FloatType::kF32;
}

nlohmann::json ReadList() {
  std::ifstream file(TestDataPath("quant/quant.json"));
  return nlohmann::json::parse(file);
}

std::vector<GoldenCase> ReadCases() {
  const GoldenTensors tensors(TestDataPath("quant/quant.safetensors"));
  std::vector<GoldenCase> cases;
  const nlohmann::json list = ReadList();
  for (const nlohmann::json& entry : list.at("cases")) {
    if (!entry.at("double_quant").get<bool>()) {
      continue;
    }
    GoldenCase golden;
    golden.name = entry.at("case").get<std::string>();
    golden.input.codebook =
        entry.at("format").get<std::string>() == "nf4" ? Codebook::kNf4 : Codebook::kFp4;
    golden.input.block_size = entry.at("block").get<int64_t>();
    golden.input.type = TypeOf(entry.at("dtype").get<std::string>());
    golden.input.source = tensors.at(entry.at("input").get<std::string>()).As<std::byte>();
    golden.codes = tensors.at(golden.name + ".codes").As<uint8_t>();
    golden.scales.codes = tensors.at(golden.name + ".absmax_codes").As<uint8_t>();
    golden.scales.absmax2 = tensors.at(golden.name + ".absmax2").As<float>();
    golden.offset = tensors.at(golden.name + ".offset").As<float>().at(0);
    golden.dequantized = tensors.at(golden.name + ".dequant").As<std::byte>();
    cases.push_back(std::move(golden));
  }
  return cases;
}

const std::vector<GoldenCase>& Cases() {
  static const auto& cases = *new std::vector<GoldenCase>(ReadCases());
  return cases;
}

TEST_P(GoldenDoubleQuantTest, HoldsEveryCase) {
  ASSERT_EQ(Cases().size(), 6u);
  for (const GoldenCase& golden : Cases()) {
    EXPECT_EQ(golden.scales.codes.size(), 553u) << "two blocks of 256 and a short one";
  }
}

TEST(GoldenScaleMapTest, IsTheMapOfBitsandbytes) {
  const auto map = ReadList().at("dynamic_map").get<std::vector<float>>();
  EXPECT_EQ(FirstDifference(StandardMap(), map), -1);
}

TEST_P(GoldenDoubleQuantTest, GivesTheCodesOfBitsandbytesForElementsAndScales) {
  for (const GoldenCase& golden : Cases()) {
    SCOPED_TRACE(golden.name);
    const BlockPlanes planes = Quantize(golden.input);
    EXPECT_EQ(FirstDifference(planes.codes, golden.codes), -1);
    for (const int64_t skew : {0, 1}) {
      const ScalePlanes found = QuantizeScales(planes.scales, golden.offset, skew);
      EXPECT_EQ(FirstDifference(found.absmax2, golden.scales.absmax2), -1);
      EXPECT_EQ(FirstDifference(found.codes, golden.scales.codes), -1);
    }
  }
}

// torch adds 553 positive scales in fp32: each passes through at most 2 additions in its thread, 2
// between the thread's four accumulators, 9 in a tree over the threads, and is then multiplied by a
// rounded 1 / 553: 15 roundings of 2^-24 at most, 1 ulp as seen. Ours adds one rounding.
TEST_P(GoldenDoubleQuantTest, TakesTheMeanOfBitsandbytesButForItsRoundings) {
  for (const GoldenCase& golden : Cases()) {
    const float found = MeanScale(Quantize(golden.input).scales);
    EXPECT_NEAR(found, golden.offset, golden.offset * 16 * FLT_EPSILON / 2) << golden.name;
  }
}

TEST_P(GoldenDoubleQuantTest, GivesScaleCodesWithinOneOfBitsandbytesWithItsOwnMean) {
  for (const GoldenCase& golden : Cases()) {
    SCOPED_TRACE(golden.name);
    const std::vector<float> scales = Quantize(golden.input).scales;
    const ScalePlanes found = QuantizeScales(scales, MeanScale(scales));
    for (size_t i = 0; i < scales.size(); ++i) {
      EXPECT_NEAR(found.codes[i], golden.scales.codes[i], 1) << "scale " << i;
    }
  }
}

TEST_P(GoldenDoubleQuantTest, DequantizesToTheBitsOfBitsandbytes) {
  for (const GoldenCase& golden : Cases()) {
    SCOPED_TRACE(golden.name);
    BlockPlanes planes;
    planes.codes = golden.codes;
    planes.scales = DequantizeScales(golden.scales, golden.offset, StandardMap());
    EXPECT_EQ(FirstDifference(Dequantize(golden.input, planes), golden.dequantized), -1);
  }
}

}  // namespace
}  // namespace nibble
