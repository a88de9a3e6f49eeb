#include "loader/quant_state.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// As transformers 5.17 and bitsandbytes 0.50 wrote them.
const char kPlain[] =
    R"({"quant_type": "fp4", "blocksize": 64, "dtype": "bfloat16", "shape": [128, 320]})";
const char kNested[] =
    R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [128, 320], )"
    R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.18877258896827698})";

// kNested with `from` replaced.
std::string Changed(const std::string& from, const std::string& to) {
  std::string changed = absl::StrReplaceAll(kNested, {{from, to}});
  EXPECT_NE(changed, kNested) << from;
  return changed;
}

void ExpectRefused(const std::string& json, absl::StatusCode code, const std::string& message) {
  const auto state = ParseQuantState(json);
  EXPECT_EQ(state.status().code(), code) << json;
  EXPECT_THAT(std::string(state.status().message()), HasSubstr(message)) << json;
}

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(QuantStateTest, ReadsWhatBitsandbytesWrites) {
  const auto plain = ParseQuantState(kPlain);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->codebook, Codebook::kFp4);
  EXPECT_EQ(plain->block_size, 64);
  EXPECT_EQ(plain->dtype, Dtype::kBf16);
  EXPECT_THAT(plain->shape, ElementsAre(128, 320));
  EXPECT_EQ(plain->element_count, 40960);
  EXPECT_FALSE(plain->double_quantized);

  const auto nested = ParseQuantState(kNested);
  ASSERT_TRUE(nested.ok()) << nested.status();
  EXPECT_EQ(nested->codebook, Codebook::kNf4);
  EXPECT_TRUE(nested->double_quantized);
  EXPECT_EQ(nested->scale_mean, 0.18877258896827698f);
}

TEST(QuantStateTest, ReadsEveryTypeAndBlockSize) {
  EXPECT_EQ(ParseQuantState(Changed("bfloat16", "float16"))->dtype, Dtype::kF16);
  EXPECT_EQ(ParseQuantState(Changed("bfloat16", "float32"))->dtype, Dtype::kF32);
  for (const int size : {32, 128, 256, 512, 1024, 2048, 4096}) {
    EXPECT_EQ(ParseQuantState(Changed("64,", absl::StrCat(size, ",")))->block_size, size);
  }
  EXPECT_THAT(ParseQuantState(Changed("128, 320", "8, 16, 32"))->shape, ElementsAre(8, 16, 32));
  EXPECT_EQ(ParseQuantState(Changed("0.18877258896827698", "-1e-3"))->scale_mean, -1e-3f);
  EXPECT_EQ(ParseQuantState(Changed("0.18877258896827698", "1"))->scale_mean, 1);
}

TEST(QuantStateTest, RefusesImpossibleBlockSizes) {
  for (const char* size : {"0", "1", "16", "48", "65", "8192", "4294967360", "-64", "64.0",
                           "\"64\"", "null", "18446744073709551616"}) {
    const std::string json = Changed("\"blocksize\": 64", absl::StrCat("\"blocksize\": ", size));
    EXPECT_EQ(ParseQuantState(json).status().code(), kDataLoss) << json;
  }
  ExpectRefused(Changed("64,", "48,"), kDataLoss,
                "blocksize: expected a power of two from 32 to 4096, found 48");
}

TEST(QuantStateTest, RefusesImpossibleShapes) {
  for (const char* shape :
       {"[]", "[0]", "[128, 0]", "[-1]", "[1.0]", "[1e3]", "[[1]]", "128", "\"128\"", "{}",
        "[1152921504606846977]", "[2147483648, 2147483648]", "[1,1,1,1,1,1,1,1,1]",
        "[9223372036854775808]", "[3, 6148914691236517206]"}) {
    EXPECT_EQ(ParseQuantState(Changed("[128, 320]", shape)).status().code(), kDataLoss) << shape;
  }
  EXPECT_EQ(ParseQuantState(Changed("[128, 320]", "[1152921504606846976]"))->element_count,
            int64_t{1} << 60);
  ExpectRefused(Changed("[128, 320]", "[4, 0]"), kDataLoss,
                "shape: expected 1 to 1152921504606846976 elements, found [4, 0...");
}

TEST(QuantStateTest, RefusesAShapeOfNullBecauseNothingElseTellsIt) {
  ExpectRefused(Changed("[128, 320]", "null"), kUnimplemented,
                "shape: expected a list, found null");
}

TEST(QuantStateTest, RefusesTypesItDoesNotKnow) {
  ExpectRefused(Changed("nf4", "int8"), kUnimplemented,
                "quant_type: expected nf4 or fp4, found \"int8\"");
  ExpectRefused(Changed("nf4", "NF4"), kUnimplemented, "quant_type");
  ExpectRefused(Changed("bfloat16", "float64"), kDataLoss,
                "dtype: expected bfloat16, float16 or float32, found \"float64\"");
}

TEST(QuantStateTest, RefusesNestedStatisticsOfAnotherKind) {
  ExpectRefused(Changed("256", "128"), kUnimplemented, "nested_blocksize: expected 256, found 128");
  ExpectRefused(Changed("float32", "float16"), kUnimplemented,
                "nested_dtype: expected float32, found \"float16\"");
}

TEST(QuantStateTest, RefusesOffsetsThatAreNoFloat) {
  for (const char* offset :
       {"NaN", "Infinity", "-Infinity", "null", "\"0\"", "[0]", "1e39", "-1e39", "1e999", ".5"}) {
    const std::string json = Changed("0.18877258896827698", offset);
    EXPECT_EQ(ParseQuantState(json).status().code(), kDataLoss) << offset;
  }
  ExpectRefused(Changed("0.18877258896827698", "1e39"), kDataLoss,
                "nested_offset: expected a float32, found 1e+39");
}

TEST(QuantStateTest, RefusesKeysThatAreMissingTwiceOrUnknown) {
  ExpectRefused(Changed(R"("blocksize": 64, )", ""), kDataLoss, "expected blocksize, found none");
  ExpectRefused(Changed(R"(, "shape": [128, 320])", ""), kDataLoss, "expected shape, found none");
  ExpectRefused("{}", kDataLoss, "expected quant_type, found none");
  ExpectRefused(Changed(R"("blocksize": 64)", R"("blocksize": 64, "blocksize": 64)"), kDataLoss,
                "\"blocksize\" stands twice");
  ExpectRefused(Changed(R"("blocksize")", R"("\u0007": 1, "blocksize")"), kDataLoss,
                "expected no key \"\\x07\"");
  ExpectRefused(Changed(R"("nested_blocksize": 256, )", ""), kDataLoss, "or none of them, found 2");
}

TEST(QuantStateTest, RefusesWhatIsNoJsonObject) {
  for (const std::string& json :
       {std::string(""), std::string("[]"), std::string("null"), std::string(kPlain) + "x",
        std::string(kPlain) + '\0', std::string(kPlain, sizeof(kPlain) - 2),
        "\xEF\xBB\xBF" + std::string(kPlain), std::string("\xFF")}) {
    EXPECT_EQ(ParseQuantState(json).status().code(), kDataLoss) << json;
  }
  EXPECT_TRUE(ParseQuantState(std::string(kPlain) + " \n").ok());
}

TEST(QuantStateTest, RefusesMoreThanItsLimit) {
  const std::string padding(static_cast<size_t>(kQuantStateBytesMax) - sizeof(kPlain) + 1, ' ');
  EXPECT_TRUE(ParseQuantState(kPlain + padding).ok());
  ExpectRefused(kPlain + padding + " ", kDataLoss, "expected at most 65536 bytes, found 65537");
}

}  // namespace
}  // namespace nibble
