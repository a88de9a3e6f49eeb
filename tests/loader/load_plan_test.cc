#include "loader/load_plan.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A checkpoint that exists only as headers, in one shard.
class Headers {
 public:
  explicit Headers(std::string model_type = "llama") {
    checkpoint_.config.model_type = std::move(model_type);
    checkpoint_.shards.push_back({"model.safetensors", {}});
  }
  Headers& Add(std::string name, std::vector<int64_t> shape, Dtype dtype = Dtype::kBf16) {
    int64_t elements = 1;
    for (const int64_t dimension : shape) {
      elements *= dimension;
    }
    return AddRaw(std::move(name), std::move(shape), dtype, elements * DtypeBits(dtype) / 8);
  }
  Headers& AddRaw(std::string name, std::vector<int64_t> shape, Dtype dtype, int64_t bytes) {
    CheckpointTensor tensor{std::move(name), 0, dtype, std::move(shape), offset_, bytes};
    // No file is that long, but headers may say so; their places do not matter here.
    offset_ = bytes > std::numeric_limits<int64_t>::max() - offset_ ? offset_ : offset_ + bytes;
    checkpoint_.tensors.push_back(std::move(tensor));
    return *this;
  }
  ModelConfig& config() { return checkpoint_.config; }

  absl::StatusOr<LoadPlan> Plan(const QuantizationSpec& spec = {},
                                const DeviceTraits& traits = kHostTraits,
                                int64_t staging_bytes = kStagingBytesDefault) const {
    return MakeLoadPlan(checkpoint_, spec, ServingSpec(), traits, staging_bytes);
  }

 private:
  Checkpoint checkpoint_;
  int64_t offset_ = 100;
};

constexpr char kUp[] = "model.layers.0.mlp.up_proj.weight";
constexpr char kGate[] = "model.layers.0.mlp.gate_proj.weight";
constexpr char kNorm[] = "model.norm.weight";
constexpr char kHead[] = "lm_head.weight";

const PlannedTensor& Find(const LoadPlan& plan, absl::string_view name) {
  const auto found = std::find_if(plan.tensors.begin(), plan.tensors.end(),
                                  [name](const auto& tensor) { return tensor.name == name; });
  Check(found != plan.tensors.end(), "the plan has the tensor");
  return *found;
}

TEST(LoadPlanTest, CountsEveryByteOfASmallModel) {
  // up: 100 x 64 = 6400 elements, 3200 bytes of codes, 100 scales. norm: 64 elements of 2 bytes.
  const absl::StatusOr<LoadPlan> plan = Headers().Add(kUp, {100, 64}).Add(kNorm, {64}).Plan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->source_bytes, 2 * 6400 + 128);
  EXPECT_EQ(Find(*plan, kUp).device_bytes, 3200 + 400);
  EXPECT_EQ(Find(*plan, kNorm).device_bytes, 128);
  // The norm is of no layer and comes first: 128 bytes, rounded up to 256. Then the codes, which
  // end at 3456 (3328 + 128 of padding: 3584), then the scales up to 3984; one page.
  EXPECT_EQ(Find(*plan, kNorm).parts[0][Plane::kData].slab_offset, 0);
  EXPECT_EQ(Find(*plan, kUp).parts[0][Plane::kData].slab_offset, 256);
  EXPECT_EQ(Find(*plan, kUp).parts[0][Plane::kScales].slab_offset, 3584);
  EXPECT_EQ(plan->weights_bytes, 4096);
  EXPECT_EQ(plan->staging_bytes, 128_MiB);
  EXPECT_EQ(plan->resident_bytes(), 4096);
  EXPECT_EQ(plan->peak_bytes(), 4096 + 128_MiB);
  EXPECT_EQ(plan->peak().total(), plan->peak_bytes());
  EXPECT_EQ(plan->peak()[Purpose::kStaging], 128_MiB);
  EXPECT_DOUBLE_EQ(plan->quantized_ratio(), 6400.0 / 6464.0);
}

TEST(LoadPlanTest, RoundsUpToTheGranularityOfTheDevice) {
  const Headers headers = Headers().Add(kUp, {64, 64});
  const absl::StatusOr<LoadPlan> plan = headers.Plan({}, kCudaTraits, 1_MiB + 1);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->weights_bytes, 2_MiB);
  EXPECT_EQ(plan->staging_bytes, 2_MiB);
}

TEST(LoadPlanTest, KeepsByDefaultWhatIsNoLinearLayerAndSaysWhy) {
  const absl::StatusOr<LoadPlan> plan = Headers()
                                            .Add("model.embed_tokens.weight", {96, 64})
                                            .Add(kHead, {96, 64})
                                            .Add(kNorm, {64})
                                            .Add(kUp, {128, 64})
                                            .Plan();
  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(Find(*plan, "model.embed_tokens.weight").reason, HasSubstr("embedding"));
  EXPECT_THAT(Find(*plan, kHead).reason, HasSubstr("output head"));
  EXPECT_THAT(Find(*plan, kNorm).reason, HasSubstr("norm"));
  EXPECT_EQ(Find(*plan, kHead).format, Format::kAsStored);
  EXPECT_EQ(Find(*plan, kUp).format, Format::kNf4);
  EXPECT_EQ(Find(*plan, kUp).reason, "");
}

TEST(LoadPlanTest, GlobsOverrideTheDefaultsAndKeepWins) {
  QuantizationSpec spec;
  spec.format = Format::kFp4;
  spec.keep = {"*.gate_proj.*"};
  spec.quantize = {"lm_head.*", "*.gate_proj.weight", "model.norm.*"};
  const absl::StatusOr<LoadPlan> plan = Headers()
                                            .Add(kHead, {96, 64})
                                            .Add(kGate, {128, 64})
                                            .Add(kUp, {128, 64})
                                            .Add(kNorm, {64})
                                            .Plan(spec);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Find(*plan, kHead).format, Format::kFp4);
  EXPECT_EQ(Find(*plan, kGate).format, Format::kAsStored);
  EXPECT_EQ(Find(*plan, kGate).reason, "kept by request");
  EXPECT_EQ(Find(*plan, kUp).format, Format::kFp4);
  EXPECT_EQ(Find(*plan, kNorm).format, Format::kAsStored);
  EXPECT_THAT(Find(*plan, kNorm).reason, HasSubstr("not quantized even by request"));
}

TEST(LoadPlanTest, RefusesAGlobThatMatchesNothing) {
  QuantizationSpec spec;
  spec.quantize = {"*", "model.layres.*"};
  const absl::StatusOr<LoadPlan> plan = Headers().Add(kUp, {128, 64}).Plan(spec);
  EXPECT_TRUE(absl::IsInvalidArgument(plan.status()));
  EXPECT_EQ(DetailsOf(plan.status()).field, "quantization.quantize");
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("model.layres.*"));
}

// bitsandbytes has no 4 bits of nothing.
TEST(LoadPlanTest, KeepsAMatrixWithoutElementsEvenIfItIsToBeQuantized) {
  QuantizationSpec spec;
  spec.quantize = {"*.up_proj.weight"};
  const absl::StatusOr<LoadPlan> plan = Headers().Add(kUp, {0, 4}).Add(kGate, {128, 64}).Plan(spec);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(Find(*plan, kUp).quantized());
  EXPECT_EQ(Find(*plan, kUp).reason, "has no elements");
  EXPECT_TRUE(Find(*plan, kGate).quantized());
}

TEST(LoadPlanTest, AsStoredKeepsEverything) {
  QuantizationSpec spec;
  spec.format = Format::kAsStored;
  const absl::StatusOr<LoadPlan> plan =
      Headers().Add(kUp, {128, 64}, Dtype::kF32).Add(kHead, {96, 64}).Plan(spec);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(Find(*plan, kUp).device_bytes, 128 * 64 * 4);
  EXPECT_EQ(plan->quantized_ratio(), 0);
}

TEST(LoadPlanTest, RefusesAPlanBelowTheAskedRatioWithBothNumbers) {
  QuantizationSpec spec;
  spec.min_quantized_ratio = 0.75;
  // Equal sizes: exactly one half is quantized.
  const absl::StatusOr<LoadPlan> plan =
      Headers().Add(kUp, {96, 64}).Add(kHead, {96, 64}).Plan(spec);
  EXPECT_TRUE(absl::IsFailedPrecondition(plan.status()));
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("0.75"));
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("0.5 "));
}

TEST(LoadPlanTest, ComparesShapesWithTheConfig) {
  Headers headers;
  headers.config().hidden_size = 64;
  headers.config().intermediate_size = 128;
  const absl::StatusOr<LoadPlan> plan = headers.Add(kUp, {128, 72}).Plan();
  EXPECT_TRUE(absl::IsDataLoss(plan.status()));
  EXPECT_EQ(plan.status().message(),
            absl::StrCat("model.safetensors: ", kUp,
                         ": expected [128, 64] from config.json, found [128, 72]"));
}

TEST(LoadPlanTest, NeverTakesIntegersOrForeignFloatsForWeights) {
  for (const Dtype dtype : {Dtype::kI8, Dtype::kU8, Dtype::kI32, Dtype::kF8E4M3, Dtype::kF64,
                            Dtype::kF4, Dtype::kC64}) {
    const absl::StatusOr<LoadPlan> plan = Headers().Add(kUp, {128, 64}, dtype).Plan();
    EXPECT_TRUE(absl::IsUnimplemented(plan.status())) << DtypeName(dtype);
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(kUp));
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(std::string(DtypeName(dtype))));
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr("model.safetensors"));
  }
}

TEST(LoadPlanTest, SkipsIntegerBuffersOfUnknownArchitecturesWithAWarning) {
  const absl::StatusOr<LoadPlan> plan = Headers("something_new")
                                            .Add("encoder.proj.weight", {128, 64})
                                            .Add("encoder.position_ids", {1, 512}, Dtype::kI64)
                                            .Plan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Find(*plan, "encoder.proj.weight").format, Format::kNf4);
  const PlannedTensor& buffer = Find(*plan, "encoder.position_ids");
  EXPECT_FALSE(buffer.loaded);
  EXPECT_THAT(buffer.reason, HasSubstr("I64"));
  EXPECT_TRUE(buffer.parts.empty());
  EXPECT_EQ(plan->source_bytes, 128 * 64 * 2);
  ASSERT_EQ(plan->warnings.size(), 2);
  EXPECT_THAT(plan->warnings[0], HasSubstr("something_new is not known"));
  EXPECT_THAT(plan->warnings[1], HasSubstr("encoder.position_ids"));
}

TEST(LoadPlanTest, QuantizesEachExpertAndEachHalfOfAFusedTensorByItself) {
  constexpr char kGateUp[] = "model.language_model.layers.0.mlp.experts.gate_up_proj";
  const absl::StatusOr<LoadPlan> plan =
      Headers("qwen3_5_moe_text").Add(kGateUp, {3, 2 * 5, 13}).Plan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  const PlannedTensor& tensor = Find(*plan, kGateUp);
  ASSERT_EQ(tensor.parts.size(), 6);
  for (size_t index = 0; index < 6; ++index) {
    EXPECT_EQ(tensor.parts[index].element_count, 65);
    EXPECT_EQ(tensor.parts[index][Plane::kData].file_offset - tensor.file_offset,
              static_cast<int64_t>(index) * 130);
  }
  // Of 65 elements each: 33 bytes of codes and two scales.
  EXPECT_EQ(tensor.device_bytes, 6 * (33 + 8));
}

TEST(LoadPlanTest, PutsTogetherWhatAKernelReadsTogether) {
  Headers headers("qwen3_moe");
  for (const char* projection : {"gate_proj", "up_proj", "down_proj"}) {
    for (const int expert : {1, 0}) {
      headers.Add(absl::StrCat("model.layers.0.mlp.experts.", expert, ".", projection, ".weight"),
                  {16, 32});
    }
  }
  const absl::StatusOr<LoadPlan> plan = headers.Plan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto part = [&plan](int expert, const char* projection) {
    return Find(*plan,
                absl::StrCat("model.layers.0.mlp.experts.", expert, ".", projection, ".weight"))
        .parts[0];
  };
  // 256 bytes of codes each, then the scales of 32 bytes on 256-byte boundaries.
  EXPECT_THAT((std::vector<int64_t>{part(0, "gate_proj")[Plane::kData].slab_offset,
                                    part(0, "up_proj")[Plane::kData].slab_offset,
                                    part(1, "gate_proj")[Plane::kData].slab_offset,
                                    part(1, "up_proj")[Plane::kData].slab_offset,
                                    part(0, "gate_proj")[Plane::kScales].slab_offset,
                                    part(0, "up_proj")[Plane::kScales].slab_offset,
                                    part(1, "gate_proj")[Plane::kScales].slab_offset,
                                    part(1, "up_proj")[Plane::kScales].slab_offset,
                                    part(0, "down_proj")[Plane::kData].slab_offset,
                                    part(1, "down_proj")[Plane::kData].slab_offset,
                                    part(0, "down_proj")[Plane::kScales].slab_offset,
                                    part(1, "down_proj")[Plane::kScales].slab_offset}),
              ElementsAre(0, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 2560, 2816));
}

TEST(LoadPlanTest, RefusesStagingOutsideItsBounds) {
  const Headers headers = Headers().Add(kUp, {128, 64});
  for (const int64_t staging_bytes :
       {int64_t{-1}, int64_t{0}, 1_MiB - 1, std::numeric_limits<int64_t>::max()}) {
    const absl::StatusOr<LoadPlan> plan = headers.Plan({}, kHostTraits, staging_bytes);
    EXPECT_EQ(DetailsOf(plan.status()).field, "staging_bytes") << staging_bytes;
  }
}

TEST(LoadPlanTest, RefusesHostileSizesWithoutOverflow) {
  constexpr int64_t kHuge = int64_t{1} << 62;
  const Headers sum = Headers()
                          .AddRaw(kUp, {kHuge / 2, 1}, Dtype::kBf16, kHuge)
                          .AddRaw(kGate, {kHuge / 2, 1}, Dtype::kBf16, kHuge);
  EXPECT_TRUE(absl::IsUnimplemented(sum.Plan().status()));
  // Empty, yet of more experts than could be listed.
  for (const int64_t experts : {kHuge, std::numeric_limits<int64_t>::max()}) {
    Headers empty("qwen3_5_moe_text");
    empty.Add("model.language_model.norm.weight", {64});
    empty.AddRaw("model.language_model.layers.0.mlp.experts.gate_up_proj", {experts, 0, 0},
                 Dtype::kBf16, 0);
    EXPECT_TRUE(absl::IsUnimplemented(empty.Plan().status())) << experts;
  }
}

TEST(LoadPlanTest, RefusesACheckpointWithoutWeights) {
  EXPECT_TRUE(absl::IsDataLoss(Headers().Plan().status()));
  EXPECT_TRUE(absl::IsDataLoss(Headers().Add(kUp, {0, 64}).Plan().status()));
}

}  // namespace
}  // namespace nibble
