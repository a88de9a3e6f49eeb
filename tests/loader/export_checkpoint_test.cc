#include "loader/export_checkpoint.h"

#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "tests/support/exporting.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

const std::filesystem::path kModels = std::filesystem::path(NIBBLE_TEST_DATA) / "models";

class ExportCheckpointTest : public testing::Test {
 protected:
  std::filesystem::path source() const { return root_.path() / "source"; }
  std::filesystem::path target() const { return root_.path() / "target"; }

  absl::Status Resolve(const std::vector<std::string>& roots, const std::string& path) {
    return ResolveExportDirectory(roots, path).status();
  }

  ScratchDirectory root_;
};

TEST_F(ExportCheckpointTest, CopiesTheTokenizerAndNothingElse) {
  TinyLlama().Write(source());
  WriteFile(source() / "tokenizer.json", "{}");
  WriteFile(source() / "tokenizer_config.json", "{\"a\": 1}");
  WriteFile(source() / "chat_template.jinja", "{{ messages }}");
  WriteFile(source() / "generation_config.json", "{}");
  WriteFile(source() / "modeling_own.py", "print()");
  WriteFile(source() / "adapter.safetensors", "");
  LoadedModel model(source());
  const ExportSummary summary = model.Export(target());
  EXPECT_THAT(FileNames(target()),
              ElementsAre("chat_template.jinja", "config.json", "generation_config.json",
                          "model.safetensors", "tokenizer.json", "tokenizer_config.json"));
  EXPECT_EQ(ReadFile(target() / "tokenizer_config.json"), "{\"a\": 1}");
  EXPECT_THAT(summary.files,
              UnorderedElementsAre("chat_template.jinja", "config.json", "generation_config.json",
                                   "model.safetensors", "tokenizer.json", "tokenizer_config.json"));
  int64_t bytes = 0;
  for (const std::string& name : FileNames(target())) {
    bytes += static_cast<int64_t>(std::filesystem::file_size(target() / name));
  }
  EXPECT_EQ(summary.bytes, bytes);
}

TEST_F(ExportCheckpointTest, DoesWithoutASourceThatIsGone) {
  TinyLlama().Write(source());
  WriteFile(source() / "tokenizer.json", "{}");
  LoadedModel model(source());
  std::filesystem::remove_all(source());
  const ExportSummary summary = model.Export(target());
  EXPECT_THAT(summary.warnings, ElementsAre(HasSubstr("tokenizer")));
  EXPECT_TRUE(std::filesystem::exists(target() / "config.json"));
}

TEST_F(ExportCheckpointTest, WritesEachExpertOfAFusedTensorAsATensorOfItsOwn) {
  const std::filesystem::path source = kModels / "qwen3_5_moe";
  LoadedModel model(source);
  model.Export(target());
  const CheckpointTensors written(target());
  const CheckpointTensors stored(source);
  const std::string layer = "layers.1.mlp.experts.";
  // [8, 2 * 64, 64]: of each expert 64 rows of gate, then 64 rows of up.
  const auto& fused = stored.at("model.language_model." + layer + "gate_up_proj");
  ASSERT_EQ(fused.shape, (std::vector<int64_t>{8, 128, 64}));
  const size_t half_bytes = 64 * 64 * 2;
  PlannedTensor like;
  like.format = Format::kNf4;
  for (size_t expert = 0; expert < 8; ++expert) {
    for (size_t half = 0; half < 2; ++half) {
      const std::string name = "model." + layer + std::to_string(expert) +
                               (half == 0 ? ".gate_proj.weight" : ".up_proj.weight");
      PartBytes expected =
          ExpectedPart(like, fused.bytes.subspan((2 * expert + half) * half_bytes, half_bytes));
      EXPECT_TRUE(written.at(name).As<std::byte>() == expected[Plane::kData]) << name;
      EXPECT_TRUE(written.at(name + ".absmax").As<std::byte>() == expected[Plane::kScales]) << name;
      EXPECT_THAT(written.Text(name + ".quant_state.bitsandbytes__nf4"),
                  HasSubstr(R"("shape": [64, 64])"));
    }
  }
}

TEST_F(ExportCheckpointTest, StaysBeneathTheRoots) {
  const std::string root = (root_.path() / "exports").string();
  std::filesystem::create_directories(root + "/team");
  std::filesystem::create_directories(root_.path() / "outside");
  std::filesystem::create_directory_symlink("../outside", root + "/out");
  std::filesystem::create_directory_symlink("team", root + "/in");

  EXPECT_EQ(Resolve({root}, root + "/model"), absl::OkStatus());
  EXPECT_EQ(Resolve({root}, root + "/team/model/"), absl::OkStatus());
  EXPECT_EQ(Resolve({root}, root + "/in/model"), absl::OkStatus());
  EXPECT_EQ(Resolve({"/nowhere/at/all", root}, root + "/model").code(),
            absl::StatusCode::kNotFound);  // A root that is gone is an operator's error.
  EXPECT_EQ(Resolve({(root_.path() / "outside").string(), root}, root + "/model"),
            absl::OkStatus());
  EXPECT_TRUE(absl::IsNotFound(Resolve({root}, root + "/missing/model")));
  for (const std::string& path :
       {root, root + "/", std::string("model"), std::string(), root + "/../outside/model",
        root + "/out/model", root + "/team/..", root_.path().string() + "/outside/model",
        root + "x/model", root + "/a\nb"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Resolve({root}, path))) << path;
  }
}

TEST_F(ExportCheckpointTest, IsOffWithoutRoots) {
  const absl::Status status = Resolve({}, "/tmp/model");
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--export-root"));
}

TEST_F(ExportCheckpointTest, LeavesADirectoryThatIsInUseAlone) {
  TinyLlama().Write(source());
  LoadedModel model(source());
  std::filesystem::create_directories(target());
  WriteFile(target() / "config.json", "mine");
  NullExportObserver observer;
  EXPECT_TRUE(absl::IsAlreadyExists(model.Export(target(), observer).status()));
  EXPECT_EQ(ReadFile(target() / "config.json"), "mine");
  EXPECT_THAT(FileNames(root_.path()), ElementsAre("source", "target"));
}

}  // namespace
}  // namespace nibble
