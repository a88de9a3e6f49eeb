// What a plan says of weights that are not there. Names are those of transformers' models.

#include "loader/missing_weights.h"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::filesystem::path kModels = std::filesystem::path(NIBBLE_TEST_DATA) / "models";

// Warnings for one of the models of tests/data without the tensors that `removed` names.
std::vector<std::string> WarningsWithout(const std::string& model,
                                         const std::function<bool(const std::string&)>& removed) {
  Checkpoint checkpoint = *OpenForTest(kModels / model);
  std::erase_if(checkpoint.tensors, [&removed](const CheckpointTensor& tensor) {
    return removed(std::string(tensor.name));
  });
  return PlanForTest(checkpoint, kHostTraits)->warnings;
}

std::function<bool(const std::string&)> Named(const std::string& part) {
  return [part](const std::string& name) { return absl::StrContains(name, part); };
}

TEST(MissingWeightsTest, AreNoneOfAModelThatIsWhole) {
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    EXPECT_THAT(WarningsWithout(entry.path().filename().string(), Named("none")), IsEmpty())
        << entry.path();
  }
}

TEST(MissingWeightsTest, AreNamed) {
  const std::string one[] = {
      "model.layers.1.self_attn.q_proj.weight",
      "model.layers.0.self_attn.k_proj.bias",
      "model.layers.1.mlp.down_proj.weight",
      "model.layers.0.input_layernorm.weight",
      "embed_tokens.weight",
  };
  for (const std::string& name : one) {
    EXPECT_THAT(WarningsWithout("qwen2", Named(name)),
                ElementsAre(AllOf(HasSubstr("lacks 1 weight "), HasSubstr(name))));
  }
}

TEST(MissingWeightsTest, AreNamedThoughNoLayerHasThem) {
  EXPECT_THAT(WarningsWithout("llama", Named("self_attn.v_proj")),
              ElementsAre(HasSubstr("model.layers.0.self_attn.v_proj.weight")));
}

TEST(MissingWeightsTest, AreAWholeModuleOfALayer) {
  EXPECT_THAT(WarningsWithout("llama", Named("layers.1.mlp.")),
              ElementsAre(AllOf(HasSubstr("lacks 3 weights"), HasSubstr("layers.1.mlp.up_proj"))));
  EXPECT_THAT(WarningsWithout("qwen3_5", Named("layers.0.linear_attn.A_log")),
              ElementsAre(HasSubstr("layers.0.linear_attn.A_log")));
}

TEST(MissingWeightsTest, AreAWholeLayer) {
  EXPECT_THAT(WarningsWithout("qwen2", Named("layers.1.")),
              ElementsAre(AllOf(HasSubstr("lacks 1 of 2 layers"), HasSubstr("layer 1"))));
}

TEST(MissingWeightsTest, AreOneExpertOfMany) {
  const std::string name = "model.layers.2.mlp.experts.2.up_proj.weight";
  EXPECT_THAT(WarningsWithout("qwen3_moe", Named(name)),
              ElementsAre(AllOf(HasSubstr("lacks 1 weight "), HasSubstr(name))));
  EXPECT_THAT(WarningsWithout("mixtral", Named("layers.0.block_sparse_moe.experts.3.")),
              ElementsAre(AllOf(HasSubstr("lacks 3 weights"), HasSubstr("experts.3.w2.weight"))));
}

}  // namespace
}  // namespace nibble
