#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/load_plan.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int64_t kMany = int64_t{1} << 40;

// 4 Mi elements in 4 bits, 1 Mi in the output head.
Checkpoint SmallModel() {
  Checkpoint checkpoint;
  checkpoint.config.model_type = "llama";
  checkpoint.shards.push_back({"model.safetensors", {}});
  checkpoint.tensors.push_back(
      {"model.layers.0.mlp.up_proj.weight", 0, Dtype::kBf16, {4096, 1024}, 0, 8_MiB});
  checkpoint.tensors.push_back({"lm_head.weight", 0, Dtype::kBf16, {1024, 1024}, 8_MiB, 2_MiB});
  return checkpoint;
}

LoadPlan Plan(int64_t staging_bytes, const QuantizationSpec& spec = {}) {
  return *MakeLoadPlan(SmallModel(), spec, {}, kHostTraits, staging_bytes);
}

// What a load with the flags of a remedy would really need.
int64_t PeakWith(int64_t staging_bytes, int64_t block_size, bool quantize_head) {
  QuantizationSpec spec;
  spec.block_size = block_size;
  if (quantize_head) {
    spec.quantize = {"lm_head.weight"};
  }
  return Plan(staging_bytes, spec).peak_bytes();
}

TEST(RemediesTest, HasNoneForWhatFits) {
  const LoadPlan plan = Plan(16_MiB);
  EXPECT_THAT(Remedies(plan, plan.peak_bytes(), plan.peak_bytes()), IsEmpty());
}

TEST(RemediesTest, NamesTheLargestStagingThatFits) {
  const LoadPlan plan = Plan(16_MiB);
  const int64_t available = plan.peak_bytes() - 1;
  const std::vector<std::string> remedies = Remedies(plan, available, available);
  EXPECT_THAT(remedies.front(), HasSubstr("--staging 15MiB"));
  EXPECT_THAT(remedies.front(), HasSubstr(absl::StrCat(PeakWith(15_MiB, 64, false))));
  EXPECT_LE(PeakWith(15_MiB, 64, false), available);
}

TEST(RemediesTest, NamesOtherModelsOnlyIfUnloadingThemIsEnough) {
  const LoadPlan plan = Plan(16_MiB);
  EXPECT_THAT(Remedies(plan, plan.peak_bytes(), plan.peak_bytes() - 7).front(),
              HasSubstr("unload other models, which hold 7 bytes"));
  for (const std::string& remedy : Remedies(plan, plan.peak_bytes() - 1, plan.peak_bytes() - 7)) {
    EXPECT_THAT(remedy, Not(HasSubstr("unload")));
  }
}

TEST(RemediesTest, ChoosesTheSmallestBlockSizeThatFits) {
  const LoadPlan plan = Plan(1_MiB);
  // 4 Mi elements: scales of 256 KiB at 64, 128 KiB at 128, 64 KiB at 256.
  const int64_t available = plan.peak_bytes() - 190_KiB;
  const std::vector<std::string> remedies = Remedies(plan, available, available);
  EXPECT_THAT(remedies, ElementsAre(HasSubstr("--quantize 'lm_head.weight' (peak"),
                                    HasSubstr("--block-size 256 (peak"),
                                    HasSubstr(absl::StrCat("by ", 190_KiB, " bytes"))));
  EXPECT_LE(PeakWith(1_MiB, 256, false), available);
  EXPECT_GT(PeakWith(1_MiB, 128, false), available);
  EXPECT_THAT(remedies[1], HasSubstr(absl::StrCat(PeakWith(1_MiB, 256, false))));
}

TEST(RemediesTest, CombinesWhatAloneIsNotEnough) {
  const LoadPlan plan = Plan(1_MiB);
  const int64_t available = PeakWith(1_MiB, 4096, true);
  const std::vector<std::string> remedies = Remedies(plan, available, available);
  EXPECT_THAT(remedies, ElementsAre(HasSubstr("--quantize 'lm_head.weight' --block-size 4096"),
                                    HasSubstr("raise --vram-budget")));
}

TEST(RemediesTest, OffersOnlyTheBudgetWhenNothingElseHelps) {
  const LoadPlan plan = Plan(1_MiB);
  EXPECT_THAT(
      Remedies(plan, 4096, 4096),
      ElementsAre(absl::StrCat("raise --vram-budget by ", plan.peak_bytes() - 4096, " bytes")));
}

TEST(RemediesTest, OffersQuantizationToWhatIsLoadedAsStored) {
  QuantizationSpec spec;
  spec.format = Format::kAsStored;
  const LoadPlan plan = Plan(1_MiB, spec);
  const int64_t available = PeakWith(1_MiB, 64, false);
  EXPECT_THAT(Remedies(plan, available, available).front(), HasSubstr("--format nf4"));
}

TEST(RemediesTest, DoesNotQuantizeWhatWasAskedToBeKept) {
  QuantizationSpec spec;
  spec.keep = {"lm_head.*"};
  const LoadPlan plan = Plan(1_MiB, spec);
  for (const std::string& remedy : Remedies(plan, kMany, PeakWith(1_MiB, 4096, true))) {
    EXPECT_THAT(remedy, Not(HasSubstr("--quantize")));
  }
}

}  // namespace
}  // namespace nibble
