#include "loader/load_spec.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(LoadSpecTest, AcceptsTheDefaultsAndEveryBlockSizeOfBitsandbytes) {
  EXPECT_TRUE(Validate(QuantizationSpec()).ok());
  EXPECT_TRUE(Validate(ServingSpec()).ok());
  for (const int64_t block_size : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    QuantizationSpec spec;
    spec.block_size = block_size;
    EXPECT_TRUE(Validate(spec).ok()) << block_size;
  }
}

TEST(LoadSpecTest, RefusesOtherBlockSizesAndNamesTheField) {
  for (const int64_t block_size : {-64, 0, 16, 48, 96, 8192}) {
    QuantizationSpec spec;
    spec.block_size = block_size;
    const absl::Status status = Validate(spec);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << block_size;
    EXPECT_EQ(DetailsOf(status).field, "quantization.block_size");
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(block_size)));
  }
}

TEST(LoadSpecTest, RefusesARatioThatIsNone) {
  for (const double ratio : {-0.1, 1.01, std::numeric_limits<double>::quiet_NaN()}) {
    QuantizationSpec spec;
    spec.min_quantized_ratio = ratio;
    EXPECT_EQ(DetailsOf(Validate(spec)).field, "quantization.min_quantized_ratio") << ratio;
  }
}

TEST(LoadSpecTest, RefusesPositiveScalesWithoutASearch) {
  QuantizationSpec spec;
  spec.positive_scales = true;
  EXPECT_EQ(DetailsOf(Validate(spec)).field, "quantization.positive_scales");
  spec.scale_search = true;
  EXPECT_TRUE(Validate(spec).ok());
}

TEST(LoadSpecTest, RefusesGlobsThatAreNone) {
  QuantizationSpec open_set;
  open_set.keep = {"a[b"};
  EXPECT_EQ(DetailsOf(Validate(open_set)).field, "quantization.keep");
  QuantizationSpec empty;
  empty.quantize = {""};
  EXPECT_EQ(DetailsOf(Validate(empty)).field, "quantization.quantize");
  QuantizationSpec many;
  many.keep.assign(257, "*");
  EXPECT_EQ(DetailsOf(Validate(many)).field, "quantization.keep");
  QuantizationSpec contradiction;
  contradiction.format = Format::kAsStored;
  contradiction.quantize = {"*"};
  EXPECT_EQ(DetailsOf(Validate(contradiction)).field, "quantization.quantize");
}

TEST(LoadSpecTest, RefusesNegativeAndAbsurdServingOptions) {
  const std::vector<std::pair<int64_t ServingSpec::*, std::string>> options = {
      {&ServingSpec::max_context_tokens, "serving.max_context_tokens"},
      {&ServingSpec::max_sequences, "serving.max_sequences"},
      {&ServingSpec::kv_cache_bytes, "serving.kv_cache_bytes"},
      {&ServingSpec::prefill_chunk_tokens, "serving.prefill_chunk_tokens"},
      {&ServingSpec::state_snapshots, "serving.state_snapshots"}};
  for (const auto& [option, field] : options) {
    for (const int64_t value : {int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
      ServingSpec spec;
      spec.*option = value;
      EXPECT_EQ(DetailsOf(Validate(spec)).field, field) << value;
    }
    ServingSpec usual;
    usual.*option = 512;
    EXPECT_TRUE(Validate(usual).ok()) << field;
  }
}

}  // namespace
}  // namespace nibble
