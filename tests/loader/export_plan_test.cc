// Which tensors an export has, under which names, and what its config says of them.

#include "loader/export_plan.h"

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/export_config.h"
#include "tests/support/exporting.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;
using Shape = std::vector<int64_t>;

const std::filesystem::path kModels = std::filesystem::path(NIBBLE_TEST_DATA) / "models";

// A plan, and what an export of it would write.
class Planned {
 public:
  explicit Planned(const std::filesystem::path& source, const QuantizationSpec& spec = {})
      : checkpoint_(*OpenForTest(source)), plan_(PlanForTest(checkpoint_, kHostTraits, spec)) {}

  absl::StatusOr<ExportPlan> Export() const {
    return MakeExportPlan(*plan_, checkpoint_.config, checkpoint_.config_json);
  }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    const absl::StatusOr<ExportPlan> exported = Export();
    for (const ExportUnit& unit : exported->units) {
      names.insert(ExportedName(checkpoint_.config, unit));
    }
    return names;
  }
  std::string ConfigFor(const std::string& source_json) const {
    return *ExportedConfig(*plan_, checkpoint_.config, source_json);
  }
  nlohmann::json Config() const { return nlohmann::json::parse(Export()->config_json); }
  std::vector<std::string> KeptModules() const {
    return Config()
        .at("quantization_config")
        .at("llm_int8_skip_modules")
        .get<std::vector<std::string>>();
  }

 private:
  Checkpoint checkpoint_;
  std::shared_ptr<const LoadPlan> plan_;
};

class ExportPlanTest : public testing::Test {
 protected:
  Planned Plan(const TinyCheckpoint& checkpoint, const QuantizationSpec& spec = {}) {
    checkpoint.Write(root_.path() / "source");
    return Planned(root_.path() / "source", spec);
  }

  ScratchDirectory root_;
};

TEST_F(ExportPlanTest, LeavesTheConfigAsItIsButForItsQuantization) {
  const Planned planned(kModels / "llama");
  nlohmann::json config = planned.Config();
  const nlohmann::json quantization = config.at("quantization_config");
  config.erase("quantization_config");
  EXPECT_EQ(config, ReadJson(kModels / "llama" / "config.json"));
  // As transformers writes it (tests/data/bnb_checkpoints/llama_nf4), but for the list.
  EXPECT_EQ(quantization, nlohmann::json::parse(R"({
    "_load_in_4bit": true, "_load_in_8bit": false, "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": false, "llm_int8_enable_fp32_cpu_offload": false,
    "llm_int8_has_fp16_weight": false, "llm_int8_skip_modules": ["lm_head"],
    "llm_int8_threshold": 6.0, "load_in_4bit": true, "load_in_8bit": false,
    "quant_method": "bitsandbytes"})"));
}

TEST_F(ExportPlanTest, KeepsEveryByteOfOtherMembersAndReplacesAnOlderQuantization) {
  const Planned planned = Plan(TinyLlama());
  const std::string json = planned.ConfigFor(
      R"({"odd": [1.50, 1e-05, NaN,  "\u00e9"], "quantization_config": {"a": 1}, "z": null})");
  EXPECT_THAT(json, StartsWith("{\n  \"odd\": [1.50, 1e-05, NaN,  \"\\u00e9\"],\n"
                               "  \"quantization_config\": {\n    \"_load_in_4bit\": true,"));
  EXPECT_THAT(json, EndsWith("\n  },\n  \"z\": null\n}\n"));
  EXPECT_EQ(json.find("quantization_config"), json.rfind("quantization_config"));
}

TEST_F(ExportPlanTest, NamesATiedHeadThatIsNotStored) {
  EXPECT_THAT(Planned(kModels / "llama_tied_llama3rope").KeptModules(), ElementsAre("lm_head"));
}

TEST_F(ExportPlanTest, NamesTheLinearLayersThatAreKeptAndNoOthers) {
  QuantizationSpec spec;
  spec.keep = {"*.1.mlp.up_proj.weight"};
  spec.quantize = {"lm_head.weight"};
  EXPECT_THAT(Planned(kModels / "llama", spec).KeptModules(),
              ElementsAre("model.layers.1.mlp.up_proj"));
  EXPECT_THAT(Planned(kModels / "qwen3_moe").KeptModules(),
              IsSupersetOf({"lm_head", "model.layers.0.mlp.gate"}));
}

TEST_F(ExportPlanTest, NamesExpertsThatAreAllKeptByTheirParent) {
  QuantizationSpec spec;
  spec.keep = {"*layers.0.block_sparse_moe.experts.*", "*layers.1.*experts.2.w1*"};
  EXPECT_THAT(Planned(kModels / "mixtral", spec).KeptModules(),
              UnorderedElementsAre("lm_head", "model.layers.0.block_sparse_moe.gate",
                                   "model.layers.0.block_sparse_moe.experts",
                                   "model.layers.1.block_sparse_moe.gate",
                                   "model.layers.1.block_sparse_moe.experts.2.w1"));
}

TEST_F(ExportPlanTest, KeepsTheNamesOfExpertsThatStandAlone) {
  const Planned planned(kModels / "mixtral");
  EXPECT_THAT(planned.Names(),
              IsSupersetOf({"model.layers.0.block_sparse_moe.experts.3.w2.weight",
                            "model.layers.0.block_sparse_moe.gate.weight", "lm_head.weight"}));
  EXPECT_THAT(planned.Export()->warnings, ElementsAre(AllOf(HasSubstr("transformers 4"),
                                                            HasSubstr("transformers 5 reads no"))));
  EXPECT_THAT(Planned(kModels / "llama").Export()->warnings, IsEmpty());
}

TEST_F(ExportPlanTest, TakesFusedExpertsApart) {
  const Planned planned(kModels / "qwen3_5_moe");
  const std::set<std::string> names = planned.Names();
  EXPECT_THAT(names, IsSupersetOf({"model.layers.0.mlp.experts.0.gate_proj.weight",
                                   "model.layers.0.mlp.experts.7.up_proj.weight",
                                   "model.layers.0.mlp.experts.7.down_proj.weight",
                                   "model.layers.0.mlp.gate.weight"}));
  EXPECT_THAT(names, Not(Contains(HasSubstr("gate_up_proj"))));
}

TEST_F(ExportPlanTest, GivesMixtralsFusedExpertsItsOwnNames) {
  TinyCheckpoint checkpoint;
  checkpoint.config_json = R"({"model_type": "mixtral"})";
  checkpoint.Add("model.layers.0.mlp.gate.weight", {2, 64})
      .Add("model.layers.0.mlp.experts.gate_up_proj", {2, 128, 64})
      .Add("model.layers.0.mlp.experts.down_proj", {2, 64, 64});
  EXPECT_THAT(Plan(checkpoint).Names(),
              UnorderedElementsAre("model.layers.0.block_sparse_moe.gate.weight",
                                   "model.layers.0.block_sparse_moe.experts.0.w1.weight",
                                   "model.layers.0.block_sparse_moe.experts.0.w3.weight",
                                   "model.layers.0.block_sparse_moe.experts.0.w2.weight",
                                   "model.layers.0.block_sparse_moe.experts.1.w1.weight",
                                   "model.layers.0.block_sparse_moe.experts.1.w3.weight",
                                   "model.layers.0.block_sparse_moe.experts.1.w2.weight"));
}

TEST_F(ExportPlanTest, WritesTheTextModelOfAVisionLanguageModelAlone) {
  const Planned planned(kModels / "qwen3_5");
  const nlohmann::json config = planned.Config();
  EXPECT_EQ(config.at("architectures"), nlohmann::json({"Qwen3_5ForCausalLM"}));
  EXPECT_EQ(config.at("model_type"), "qwen3_5_text");
  EXPECT_TRUE(config.contains("tie_word_embeddings"));
  EXPECT_FALSE(config.contains("vision_config"));
  const nlohmann::json text = ReadJson(kModels / "qwen3_5" / "config.json").at("text_config");
  for (const auto& [key, value] : text.items()) {
    EXPECT_EQ(config.at(key), value) << key;
  }
  EXPECT_THAT(planned.Names(),
              IsSupersetOf({"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
                            "model.layers.0.linear_attn.A_log"}));
  EXPECT_THAT(planned.Names(), Not(Contains(HasSubstr("language_model"))));
  EXPECT_THAT(planned.Names(), Not(Contains(HasSubstr("visual"))));
  EXPECT_THAT(planned.KeptModules(),
              IsSupersetOf({"lm_head", "model.layers.0.linear_attn.in_proj_a"}));
  EXPECT_THAT(planned.Export()->warnings, ElementsAre(HasSubstr("Qwen3_5ForCausalLM")));
}

TEST_F(ExportPlanTest, RefusesWhatNothingWouldRead) {
  QuantizationSpec as_stored;
  as_stored.format = Format::kAsStored;
  const absl::Status nothing = Planned(kModels / "llama", as_stored).Export().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(nothing)) << nothing;

  TinyCheckpoint vision = TinyLlama();
  vision.config_json =
      R"({"model_type": "llava", "text_config": {"model_type": "llama", "hidden_size": 64}})";
  const absl::Status text = Plan(vision).Export().status();
  EXPECT_TRUE(absl::IsUnimplemented(text)) << text;

  TinyCheckpoint fused;
  fused.config_json = R"({"model_type": "unheard_of"})";
  fused.Add("model.layers.0.ffn.experts.gate_up_proj", {2, 128, 64});
  const absl::Status unknown = Plan(fused).Export().status();
  EXPECT_TRUE(absl::IsUnimplemented(unknown)) << unknown;
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("experts.gate_up_proj"));
}

// bitsandbytes counts elements in an int. 2^31 elements are cut from a sparse file that is planned
// and not read.
TEST_F(ExportPlanTest, RefusesATensorOfTwoToTheThirtyOneElementsByName) {
  for (const int64_t rows : {(int64_t{1} << 25) - 1, int64_t{1} << 25}) {
    const std::string name = "model.layers.0.mlp.up_proj.weight";
    const std::filesystem::path source = root_.path() / absl::StrCat(rows);
    std::filesystem::create_directories(source);
    WriteFile(source / "config.json", R"({"model_type": "llama"})");
    const int64_t bytes = rows * 64 * 2;
    const std::string header =
        WriteSafetensorsHeader({{name, Dtype::kBf16, {rows, 64}, 0, bytes}}, {});
    WriteFile(source / "model.safetensors", header);
    std::filesystem::resize_file(source / "model.safetensors",
                                 header.size() + static_cast<size_t>(bytes));
    const absl::Status status = Planned(source).Export().status();
    if (rows < int64_t{1} << 25) {
      EXPECT_EQ(status, absl::OkStatus());
    } else {
      EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    }
  }
}

TEST_F(ExportPlanTest, RefusesTwoTensorsOfOneName) {
  TinyCheckpoint checkpoint;
  checkpoint.config_json = R"({"model_type": "mixtral"})";
  checkpoint.Add("model.layers.0.mlp.experts.gate_up_proj", {1, 128, 64})
      .Add("model.layers.0.block_sparse_moe.experts.0.w1.weight", {64, 64});
  const absl::Status status = Plan(checkpoint).Export().status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("experts.0.w1.weight"));
}

// Beside W.absmax and its like these would be broken side tensors to whoever reads them.
TEST_F(ExportPlanTest, RefusesWhatWouldBeTakenForASideTensorByName) {
  const std::string owner = "model.layers.0.mlp.up_proj.weight";
  for (const char* words : {".scale", ".scale.inverse", ".a.b.c"}) {
    TinyCheckpoint checkpoint;
    checkpoint.Add(owner, {64, 64}).Add(owner + words, {64});
    const absl::Status status = Plan(checkpoint).Export().status();
    if (std::string(words) == ".a.b.c") {
      EXPECT_TRUE(status.ok()) << status;  // No reader takes it for one.
      continue;
    }
    EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(owner + words));
    QuantizationSpec spec;
    spec.keep = {owner};
    TinyCheckpoint kept = checkpoint;
    kept.Add("model.layers.0.mlp.down_proj.weight", {64, 64});
    EXPECT_TRUE(Plan(kept, spec).Export().ok()) << "as the message says";
  }
}

}  // namespace
}  // namespace nibble
