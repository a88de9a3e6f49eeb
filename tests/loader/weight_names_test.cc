#include "loader/weight_names.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using Shape = std::vector<int64_t>;

WeightName Classify(absl::string_view model_type, absl::string_view name,
                    const Shape& shape = {64, 64}) {
  return ClassifyWeight(FindFamily(model_type), name, shape);
}

Role RoleOf(absl::string_view model_type, absl::string_view name, const Shape& shape = {64, 64}) {
  return Classify(model_type, name, shape).role;
}

Role Generic(absl::string_view name, const Shape& shape = {64, 64}) {
  return ClassifyWeight(nullptr, name, shape).role;
}

TEST(WeightNamesTest, KnowsTheFamiliesOfTheReadme) {
  for (const char* model_type : {"llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "mixtral",
                                 "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text",
                                 "seed_oss", "gemma2", "gemma3", "gemma3_text", "cohere"}) {
    EXPECT_NE(FindFamily(model_type), nullptr) << model_type;
  }
  for (const char* model_type : {"", "Llama", "llama2", "gpt_oss", "qwen3_next"}) {
    EXPECT_EQ(FindFamily(model_type), nullptr) << model_type;
  }
}

TEST(WeightNamesTest, GivesRoleLayerAndExpert) {
  const WeightName query = Classify("llama", "model.layers.31.self_attn.q_proj.weight");
  EXPECT_EQ(query.role, Role::kQuery);
  EXPECT_EQ(query.layer_index, 31);
  EXPECT_EQ(query.expert_index, -1);
  const WeightName expert =
      Classify("mixtral", "model.layers.2.block_sparse_moe.experts.7.w3.weight");
  EXPECT_EQ(expert.role, Role::kExpertUp);
  EXPECT_EQ(expert.layer_index, 2);
  EXPECT_EQ(expert.expert_index, 7);
  EXPECT_EQ(Classify("llama", "lm_head.weight").layer_index, -1);
}

TEST(WeightNamesTest, KnowsThePrefixesOfVisionLanguageModels) {
  for (const char* prefix : {"model.", "model.language_model.", "language_model.model.", ""}) {
    EXPECT_EQ(RoleOf("gemma3", absl::StrCat(prefix, "layers.0.mlp.up_proj.weight")), Role::kUp);
    EXPECT_EQ(RoleOf("gemma3", absl::StrCat(prefix, "embed_tokens.weight")), Role::kEmbedding);
    EXPECT_EQ(RoleOf("gemma3", absl::StrCat(prefix, "norm.weight"), {64}), Role::kNorm);
  }
  EXPECT_EQ(RoleOf("gemma3", "language_model.lm_head.weight"), Role::kOutputHead);
  EXPECT_EQ(RoleOf("gemma3", "lm_head.weight"), Role::kOutputHead);
}

TEST(WeightNamesTest, TakesExpertsApartAndFused) {
  for (const char* model_type : {"qwen3_moe", "mixtral", "qwen3_5_moe_text"}) {
    const auto role = [model_type](absl::string_view tail, const Shape& shape) {
      return RoleOf(model_type, absl::StrCat("model.layers.0.mlp.", tail), shape);
    };
    EXPECT_EQ(role("gate.weight", {8, 64}), Role::kRouter);
    EXPECT_EQ(role("experts.gate_up_proj", {8, 128, 64}), Role::kExpertsGateUp);
    EXPECT_EQ(role("experts.gate_up_proj.weight", {8, 128, 64}), Role::kExpertsGateUp);
    EXPECT_EQ(role("experts.down_proj", {8, 64, 64}), Role::kExpertsDown);
    EXPECT_EQ(role("experts.down_proj.weight", {8, 64, 64}), Role::kExpertsDown);
    EXPECT_EQ(role("experts.5.gate_proj.weight", {64, 64}), Role::kExpertGate);
    EXPECT_EQ(role("experts.5.up_proj.weight", {64, 64}), Role::kExpertUp);
    EXPECT_EQ(role("experts.5.down_proj.weight", {64, 64}), Role::kExpertDown);
  }
}

TEST(WeightNamesTest, KnowsTheLayersOfGatedDeltaNet) {
  const auto role = [](absl::string_view tail) {
    return RoleOf("qwen3_5_moe", absl::StrCat("model.language_model.layers.0.", tail));
  };
  EXPECT_EQ(role("linear_attn.in_proj_qkv.weight"), Role::kLinearQueryKeyValue);
  EXPECT_EQ(role("linear_attn.in_proj_z.weight"), Role::kLinearOutputGate);
  EXPECT_EQ(role("linear_attn.in_proj_a.weight"), Role::kLinearDecayGates);
  EXPECT_EQ(role("linear_attn.in_proj_b.weight"), Role::kLinearDecayGates);
  EXPECT_EQ(role("linear_attn.A_log"), Role::kLinearDecay);
  EXPECT_EQ(role("linear_attn.dt_bias"), Role::kLinearDecay);
  EXPECT_EQ(role("linear_attn.conv1d.weight"), Role::kConvolution);
  EXPECT_EQ(role("linear_attn.norm.weight"), Role::kNorm);
  EXPECT_EQ(role("linear_attn.out_proj.weight"), Role::kLinearAttentionOutput);
  EXPECT_EQ(role("mlp.shared_expert.up_proj.weight"), Role::kSharedExpertUp);
  EXPECT_EQ(role("mlp.shared_expert_gate.weight"), Role::kSharedExpertRouter);
}

TEST(WeightNamesTest, SetsTowersAndHeadsBesideTheTextModelApart) {
  for (const char* model_type : {"qwen3_5", "llama", "never_seen"}) {
    EXPECT_EQ(RoleOf(model_type, "model.visual.blocks.0.attn.qkv.weight"), Role::kVision);
    EXPECT_EQ(RoleOf(model_type, "vision_tower.x.weight"), Role::kVision);
    EXPECT_EQ(RoleOf(model_type, "model.multi_modal_projector.x"), Role::kVision);
    EXPECT_EQ(RoleOf(model_type, "mtp.layers.0.mlp.up_proj.weight"), Role::kMultiTokenPrediction);
    EXPECT_EQ(RoleOf(model_type, "model.layers.0.self_attn.rotary_emb.inv_freq", {64}),
              Role::kRotaryBuffer);
  }
}

TEST(WeightNamesTest, TakesNoNameThatOnlyLooksAlike) {
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.weight2", "xmodel.layers.0.self_attn.q_proj.weight",
        "model.layers.self_attn.q_proj.weight", "model.layers.01.self_attn.q_proj.weight",
        "model.layers.-1.self_attn.q_proj.weight", "model.layers.1e3.self_attn.q_proj.weight",
        "model.layers.99999999999.self_attn.q_proj.weight", "model.layers..self_attn.q_proj.weight",
        "model.layers.0.self_attn.Q_proj.weight", "model.layers.{layer}.self_attn.q_proj.weight",
        "model.model.norm.weight", "model.layers.0.mlp.experts.0.up_proj.weight", "", ".",
        "model.layers.0.self_attn.q_proj.weight.absmax", "visualx.weight", "xmtp.weight"}) {
    EXPECT_EQ(RoleOf("llama", name), Role::kOther) << name;
  }
}

TEST(WeightNamesTest, FindsTheLinearLayersOfUnknownFamilies) {
  for (const char* name :
       {"transformer.h.0.attn.c_attn.weight", "gpt_neox.layers.3.mlp.dense_h_to_4h.weight",
        "model.layers.0.self_attn.qkv_proj.weight", "model.layers.0.mlp.gate_up_proj.weight",
        "model.layers.0.mlp.gate_proj.weight", "model.layers.1.feed_forward.w1.weight",
        "model.layers.1.mlp.experts.3.w2.weight", "encoder.block.0.layer.0.SelfAttention.q.weight",
        "backbone.layers.0.mixer.in_proj.weight", "model.layers.0.attention.output.dense.weight",
        "model.layers.0.output.weight"}) {
    EXPECT_EQ(Generic(name), Role::kLinear) << name;
  }
}

TEST(WeightNamesTest, KeepsWhatIsNoLinearLayerInUnknownFamilies) {
  for (const char* name : {"model.embed_tokens.weight", "transformer.wte.weight",
                           "transformer.wpe.weight", "gpt_neox.embed_in.weight",
                           "transformer.word_embeddings.weight", "model.tok_embeddings.weight"}) {
    EXPECT_EQ(Generic(name), Role::kEmbedding) << name;
  }
  for (const char* name :
       {"lm_head.weight", "output.weight", "embed_out.weight", "transformer.output_layer.weight"}) {
    EXPECT_EQ(Generic(name), Role::kOutputHead) << name;
  }
  for (const char* name :
       {"model.norm.weight", "transformer.ln_f.weight", "transformer.h.0.ln_1.weight",
        "model.layers.0.input_layernorm.weight", "model.layers.0.attention_norm.weight",
        "model.layers.0.norm1.weight", "model.layers.0.self_attn.q_norm.weight"}) {
    EXPECT_EQ(Generic(name), Role::kNorm) << name;
    EXPECT_EQ(Generic(name, {64}), Role::kNorm) << name;
  }
  for (const char* name :
       {"model.layers.0.mlp.gate.weight", "model.layers.0.mlp.router.weight",
        "model.layers.0.router.layer.weight", "model.layers.0.mlp.shared_expert_gate.weight"}) {
    EXPECT_EQ(Generic(name), Role::kRouter) << name;
  }
  EXPECT_EQ(Generic("model.layers.0.self_attn.q_proj.bias", {64}), Role::kBias);
  EXPECT_EQ(Generic("model.layers.0.mlp.experts.gate_up_proj_bias", {8, 64}), Role::kBias);
  EXPECT_EQ(Generic("backbone.layers.0.mixer.conv1d.weight", {64, 1, 4}), Role::kConvolution);
  EXPECT_EQ(Generic("backbone.layers.0.mixer.A_log", {64, 16}), Role::kOther);
  EXPECT_EQ(Generic("model.layers.0.self_attn.sinks", {64}), Role::kOther);
  EXPECT_EQ(Generic("model.layers.0.x.weight", {64}), Role::kOther);
}

TEST(WeightNamesTest, FindsFusedExpertsInUnknownFamilies) {
  EXPECT_EQ(Generic("model.layers.0.mlp.experts.gate_up_proj", {8, 128, 64}), Role::kExpertsGateUp);
  EXPECT_EQ(Generic("model.layers.0.feed_forward.experts.down_proj.weight", {8, 64, 64}),
            Role::kExpertsDown);
  EXPECT_EQ(Generic("model.layers.0.mlp.experts.gate_up_proj", {128, 64}), Role::kOther);
  const WeightName named =
      ClassifyWeight(nullptr, "transformer.h.5.moe.experts.12.fc1.weight", Shape{64, 64});
  EXPECT_EQ(named.role, Role::kLinear);
  EXPECT_EQ(named.layer_index, 5);
  EXPECT_EQ(named.expert_index, 12);
}

TEST(WeightNamesTest, ExpectsTheShapesOfQwen35) {
  // Qwen3.5-35B-A3B.
  ModelConfig config;
  config.model_type = "qwen3_5_moe_text";
  config.hidden_size = 2048;
  config.head_count = 16;
  config.key_value_head_count = 2;
  config.head_size = 256;
  config.vocabulary_size = 248320;
  config.expert_count = 256;
  config.expert_intermediate_size = 512;
  config.shared_expert_intermediate_size = 512;
  config.linear_key_head_count = 16;
  config.linear_value_head_count = 32;
  config.linear_key_head_size = 128;
  config.linear_value_head_size = 128;
  config.linear_conv_kernel_size = 4;
  const auto expected = [&config](Role role) { return ExpectedShape(config, {.role = role}); };
  EXPECT_EQ(expected(Role::kQuery), (Shape{8192, 2048}));  // Query and gate.
  EXPECT_EQ(expected(Role::kKey), (Shape{512, 2048}));
  EXPECT_EQ(expected(Role::kAttentionOutput), (Shape{2048, 4096}));
  EXPECT_EQ(expected(Role::kOutputHead), (Shape{248320, 2048}));
  EXPECT_EQ(expected(Role::kExpertsGateUp), (Shape{256, 1024, 2048}));
  EXPECT_EQ(expected(Role::kExpertsDown), (Shape{256, 2048, 512}));
  EXPECT_EQ(expected(Role::kExpertGate), (Shape{512, 2048}));
  EXPECT_EQ(expected(Role::kSharedExpertDown), (Shape{2048, 512}));
  EXPECT_EQ(expected(Role::kSharedExpertRouter), (Shape{1, 2048}));
  EXPECT_EQ(expected(Role::kLinearQueryKeyValue), (Shape{8192, 2048}));
  EXPECT_EQ(expected(Role::kLinearOutputGate), (Shape{4096, 2048}));
  EXPECT_EQ(expected(Role::kConvolution), (Shape{8192, 1, 4}));
  EXPECT_EQ(expected(Role::kLinearDecay), (Shape{32}));
  EXPECT_EQ(expected(Role::kLinearAttentionOutput), (Shape{2048, 4096}));
}

TEST(WeightNamesTest, ExpectsNothingWhereTheConfigDoesNotSay) {
  ModelConfig config;
  config.model_type = "llama";
  config.hidden_size = 64;
  EXPECT_EQ(ExpectedShape(config, {.role = Role::kQuery}), Shape{});
  EXPECT_EQ(ExpectedShape(config, {.role = Role::kGate}), Shape{});
  EXPECT_EQ(ExpectedShape(config, {.role = Role::kNorm}), Shape{});
  EXPECT_EQ(ExpectedShape(config, {.role = Role::kBias}), Shape{});
  config.vocabulary_size = 100;
  EXPECT_EQ(ExpectedShape(config, {.role = Role::kEmbedding}), (Shape{100, 64}));
  // Models we do not know may factor their embeddings, or have other tables of vectors.
  config.model_type = "albert";
  EXPECT_EQ(ExpectedShape(config, {.role = Role::kEmbedding}), Shape{});
}

TEST(WeightNamesTest, NamesEveryRoleOnce) {
  std::set<std::string> names;
  for (int role = 0; role <= static_cast<int>(Role::kOther); ++role) {
    names.insert(std::string(RoleName(static_cast<Role>(role))));
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(Role::kOther) + 1);
  EXPECT_EQ(RoleName(Role::kQuery), "query");
  EXPECT_EQ(RoleName(Role::kExpertsGateUp), "experts_gate_up");
  EXPECT_EQ(RoleName(Role::kOther), "other");
}

}  // namespace
}  // namespace nibble
