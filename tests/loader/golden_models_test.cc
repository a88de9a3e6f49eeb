// The checkpoints that transformers wrote: what nibble quantizes of each is what quantized.json,
// made from the in-memory model, names; and each loads in exactly the bytes of its plan.

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

const std::filesystem::path kModels = std::filesystem::path(NIBBLE_TEST_DATA) / "models";

std::vector<std::string> ModelNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The name that transformers 5 gives in memory to what a checkpoint stores under `name`: experts
// are fused, Mixtral's MoE block is called mlp, and the text model of a vision-language checkpoint
// stands alone.
std::string InMemoryName(const std::string& name) {
  std::string renamed = absl::StrReplaceAll(
      name, {{"model.language_model.", "model."}, {".block_sparse_moe.", ".mlp."}});
  const size_t experts = renamed.find(".mlp.experts.");
  if (experts == std::string::npos) {
    return renamed;
  }
  const bool down =
      absl::StrContains(renamed, ".down_proj") || absl::EndsWith(renamed, ".w2.weight");
  return renamed.substr(0, experts) + ".mlp.experts." + (down ? "down_proj" : "gate_up_proj");
}

class GoldenModelsTest : public testing::TestWithParam<std::string> {
 protected:
  GoldenModelsTest() : checkpoint_(OpenForTest(kModels / GetParam())) {}

  absl::StatusOr<Checkpoint> checkpoint_;
};

TEST_P(GoldenModelsTest, QuantizesTheParametersThatItsListNames) {
  ASSERT_TRUE(checkpoint_.ok()) << checkpoint_.status();
  const auto golden = nlohmann::json::parse(ReadFile(kModels / GetParam() / "quantized.json"));
  const auto plan = PlanForTest(*checkpoint_, kHostTraits);
  std::set<std::string> quantized;
  std::set<std::string> kept;
  std::set<std::string> skipped;
  for (const PlannedTensor& tensor : plan->tensors) {
    if (!tensor.loaded) {
      skipped.insert(tensor.name);
      continue;
    }
    (tensor.format == Format::kNf4 ? quantized : kept).insert(InMemoryName(tensor.name));
    EXPECT_EQ(tensor.reason.empty(), tensor.format == Format::kNf4) << tensor.name;
  }
  EXPECT_EQ(quantized, golden.at("quantized").get<std::set<std::string>>());
  EXPECT_EQ(kept, golden.at("kept").get<std::set<std::string>>());
  // The text model alone is loaded; its list does not know the rest of a vision-language
  // checkpoint.
  EXPECT_THAT(skipped, testing::Each(testing::AnyOf(testing::StartsWith("model.visual."),
                                                    testing::StartsWith("mtp."))));
  EXPECT_THAT(plan->warnings, testing::IsEmpty());
}

TEST_P(GoldenModelsTest, LoadsInExactlyThePlannedBytesAndHoldsTheReferencesBits) {
  ASSERT_TRUE(checkpoint_.ok()) << checkpoint_.status();
  const auto plan = PlanForTest(*checkpoint_, kHostTraits);
  const std::unique_ptr<Device> device = OpenHostDevice(plan->peak_bytes());
  VramBudget budget(plan->peak_bytes());
  NullObserver observer;
  const auto weights = LoadForTest(*device, budget, *checkpoint_, plan, observer);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ((*weights)->allocated_peak_bytes(), plan->peak_bytes());
  for (const PlannedTensor& tensor : plan->tensors) {
    const std::string& file_name =
        checkpoint_->shards[static_cast<size_t>(tensor.shard_index)].file_name;
    const std::string file = ReadFile(kModels / GetParam() / file_name);
    for (const PlannedPart& part : tensor.parts) {
      const auto elements = std::as_bytes(std::span(file))
                                .subspan(static_cast<size_t>(part[Plane::kData].file_offset),
                                         static_cast<size_t>(part.element_count *
                                                             DtypeBits(tensor.source_dtype) / 8));
      EXPECT_TRUE(LoadedPart(*device, **weights, tensor, part) == ExpectedPart(tensor, elements))
          << tensor.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModelsTest, testing::ValuesIn(ModelNames()),
                         [](const auto& info) { return info.param; });

TEST(DemoModelTest, LoadsInExactlyThePlannedBytes) {
  const absl::StatusOr<Checkpoint> checkpoint =
      OpenForTest(std::filesystem::path(NIBBLE_TEST_DATA) / "demo-model");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto plan = PlanForTest(*checkpoint, kHostTraits);
  const std::unique_ptr<Device> device = OpenHostDevice(plan->peak_bytes());
  VramBudget budget(plan->peak_bytes());
  NullObserver observer;
  const auto weights = LoadForTest(*device, budget, *checkpoint, plan, observer);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ((*weights)->allocated_peak_bytes(), plan->peak_bytes());
}

}  // namespace
}  // namespace nibble
