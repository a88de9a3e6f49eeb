#include "loader/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/weight_names.h"
#include "tests/support/faulty_directory.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const char kIndex[] = "model.safetensors.index.json";

class CheckpointTest : public ::testing::Test {
 protected:
  fs::path model() const { return scratch_.path() / "model"; }

  absl::StatusOr<Checkpoint> Open() const {
    auto directory = OpenCheckpointDirectory(scratch_.path().string(), "model");
    return directory.ok() ? OpenCheckpoint(*directory) : directory.status();
  }

  void ExpectRefused(absl::StatusCode code, const std::string& message) const {
    const auto checkpoint = Open();
    EXPECT_EQ(checkpoint.status().code(), code) << checkpoint.status();
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(message));
  }

  ScratchDirectory scratch_;
};

class GoldenCheckpointTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenCheckpointTest, OpensAndEveryTensorIsWhatTheConfigSays) {
  const std::string root = NIBBLE_TEST_DATA "/models";
  const auto directory = OpenCheckpointDirectory(root, GetParam());
  ASSERT_TRUE(directory.ok()) << directory.status();
  const auto checkpoint = OpenCheckpoint(*directory);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->warnings, IsEmpty());
  const ModelFamily* const family = FindFamily(checkpoint->config.model_type);
  ASSERT_NE(family, nullptr) << checkpoint->config.model_type;
  for (const CheckpointTensor& tensor : checkpoint->tensors) {
    const WeightName weight = ClassifyWeight(family, tensor.name, tensor.shape);
    EXPECT_NE(weight.role, Role::kOther) << tensor.name;
    EXPECT_NE(weight.role, Role::kLinear) << tensor.name;
    const std::vector<int64_t> expected = ExpectedShape(checkpoint->config, weight);
    const bool sized = weight.role != Role::kNorm && weight.role != Role::kBias &&
                       weight.role != Role::kVision && weight.role != Role::kMultiTokenPrediction;
    EXPECT_EQ(expected.empty(), !sized) << tensor.name;
    EXPECT_EQ(sized ? expected : tensor.shape, tensor.shape) << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenCheckpointTest,
                         ::testing::Values("cohere", "gemma2", "gemma3", "llama",
                                           "llama_rows_not_multiple_of_64", "llama_tied_llama3rope",
                                           "mistral_sliding", "mixtral", "qwen2", "qwen3",
                                           "qwen3_5", "qwen3_5_moe", "qwen3_moe", "seed_oss"),
                         [](const auto& info) { return info.param; });

TEST_F(CheckpointTest, ListsTensorsInTheOrderOfShardsAndPlaces) {
  TinyCheckpoint tiny;
  tiny.Add("z", {4}, Dtype::kF32, "", 0).Add("a", {2, 3}, Dtype::kF16, "", 0);
  tiny.Add("m", {8}, Dtype::kBf16, "", 1);
  tiny.Write(model());
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->tensors.size(), 3u);
  EXPECT_EQ(checkpoint->tensors[0].name, "z");
  EXPECT_EQ(checkpoint->tensors[1].name, "a");
  EXPECT_EQ(checkpoint->tensors[1].bytes, 12);
  EXPECT_EQ(checkpoint->tensors[1].file_offset, checkpoint->tensors[0].file_offset + 16);
  EXPECT_EQ(checkpoint->tensors[2].shard_index, 1);
  ASSERT_EQ(checkpoint->shards.size(), 2u);
  EXPECT_EQ(checkpoint->shards[1].file_name, "model-00002-of-00002.safetensors");
  EXPECT_EQ(checkpoint->shards[1].identity.bytes,
            static_cast<int64_t>(fs::file_size(model() / "model-00002-of-00002.safetensors")));
}

TEST_F(CheckpointTest, RefusesAnEmptyFolder) {
  fs::create_directories(model());
  ExpectRefused(absl::StatusCode::kNotFound, "found an empty folder");
}

TEST_F(CheckpointTest, RefusesAFolderWithoutConfig) {
  TinyCheckpoint tiny = TinyLlama();
  tiny.config_json = "";
  tiny.Write(model());
  ExpectRefused(absl::StatusCode::kNotFound, "expected a config.json");
}

TEST_F(CheckpointTest, RefusesAFolderWithoutWeights) {
  fs::create_directories(model());
  WriteFile(model() / "config.json", R"({"model_type":"llama"})");
  WriteFile(model() / "adapter_model.safetensors", "x");
  WriteFile(model() / "consolidated.safetensors", "x");
  ExpectRefused(absl::StatusCode::kNotFound, "found none of them");
}

TEST_F(CheckpointTest, RefusesAConfigWithoutModelType) {
  TinyCheckpoint tiny = TinyLlama();
  tiny.config_json = R"({"hidden_size":64})";
  tiny.Write(model());
  ExpectRefused(absl::StatusCode::kDataLoss, "config.json: expected model_type");
}

TEST_F(CheckpointTest, RefusesForeignQuantizationAndNamesTheMethod) {
  for (const char* method : {"gptq", "awq", "compressed-tensors", "fbgemm_fp8", "\\u0007"}) {
    TinyCheckpoint tiny = TinyLlama();
    tiny.config_json = absl::StrCat(
        R"({"model_type":"llama","quantization_config":{"quant_method":")", method, "\"}}");
    tiny.Write(model());
    ExpectRefused(absl::StatusCode::kUnimplemented,
                  method[0] == '\\' ? "\"\\x07\"" : absl::StrCat("\"", method, "\""));
  }
}

TEST_F(CheckpointTest, RefusesThe8BitsOfBitsandbytesAndTakesItsFour) {
  TinyCheckpoint tiny = TinyLlama();
  tiny.config_json = R"({"model_type":"llama","quantization_config":{"load_in_8bit":true,
                         "quant_method":"bitsandbytes"}})";
  tiny.Write(model());
  ExpectRefused(absl::StatusCode::kUnimplemented, "\"bitsandbytes_8bit\" is not supported");
  tiny.config_json = R"({"model_type":"llama","quantization_config":{"load_in_4bit":true,
                         "quant_method":"bitsandbytes"}})";
  tiny.Write(model());
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensors.size(), tiny.tensors.size());
}

TEST_F(CheckpointTest, RefusesATruncatedShardAndNamesIt) {
  TinyLlama({.shard_count = 2}).Write(model());
  TruncateFile(model() / "model-00002-of-00002.safetensors", 1);
  ExpectRefused(absl::StatusCode::kDataLoss, "model-00002-of-00002.safetensors: tensor ");
  ExpectRefused(absl::StatusCode::kDataLoss, "truncated: expected its data to end at");
}

TEST_F(CheckpointTest, RefusesAMissingShardAndNamesIt) {
  TinyLlama({.shard_count = 3}).Write(model());
  fs::remove(model() / "model-00002-of-00003.safetensors");
  ExpectRefused(absl::StatusCode::kDataLoss,
                "the shard model-00002-of-00003.safetensors is missing");
}

TEST_F(CheckpointTest, RefusesATensorThatTwoShardsHold) {
  TinyCheckpoint tiny;
  tiny.Add("a", {4}, Dtype::kF32, "", 0).Add("a", {4}, Dtype::kF32, "", 1);
  tiny.Add("b", {4}, Dtype::kF32, "", 0);
  tiny.Write(model());
  ExpectRefused(absl::StatusCode::kDataLoss,
                "model-00002-of-00002.safetensors: tensor \"a\": is in "
                "model-00001-of-00002.safetensors too");
}

TEST_F(CheckpointTest, RefusesAnIndexThatPlacesATensorWhereItIsNot) {
  TinyCheckpoint tiny;
  tiny.Add("a", {4}, Dtype::kF32, "", 0).Add("b", {4}, Dtype::kF32, "", 1);
  tiny.Add("c", {4}, Dtype::kF32, "", 0);
  tiny.index_overrides = {{"a", tiny.shard_file_name(1)}};
  tiny.Write(model());
  ExpectRefused(absl::StatusCode::kDataLoss,
                "model-00002-of-00002.safetensors: expected tensor \"a\" as "
                "model.safetensors.index.json says, found it in model-00001-of-00002.safetensors");
}

TEST_F(CheckpointTest, RefusesAnIndexWithATensorThatIsNowhere) {
  TinyCheckpoint tiny;
  tiny.Add("a", {4}, Dtype::kF32);
  tiny.index_overrides = {{"ghost", "model.safetensors"}};
  tiny.Write(model());
  ExpectRefused(absl::StatusCode::kDataLoss, "expected tensor \"ghost\"");
}

TEST_F(CheckpointTest, RefusesShardNamesThatLeadOut) {
  for (const char* name : {"../x", "..", "/etc/passwd", "a/b", ".", ""}) {
    TinyCheckpoint tiny;
    tiny.Add("a", {4}, Dtype::kF32);
    tiny.index_overrides = {{"a", name}};
    tiny.Write(model());
    ExpectRefused(absl::StatusCode::kInvalidArgument,
                  absl::StrCat("a plain file name, found \"", name, "\""));
  }
}

TEST_F(CheckpointTest, RefusesTensorNamesWithControlCharacters) {
  TinyCheckpoint tiny;
  tiny.Add("a\x1b[2J", {4}, Dtype::kF32);
  tiny.Write(model());
  ExpectRefused(absl::StatusCode::kInvalidArgument, "model.safetensors: tensor \"a\\x1b[2J\"");
}

TEST_F(CheckpointTest, RefusesShardsThatAreNoRegularFiles) {
  TinyLlama({.shard_count = 2}).Write(model());
  const fs::path shard = model() / "model-00001-of-00002.safetensors";
  fs::remove(shard);
  ASSERT_EQ(mkfifo(shard.c_str(), 0600), 0);
  ExpectRefused(absl::StatusCode::kInvalidArgument,
                "model-00001-of-00002.safetensors: expected a regular file, found a FIFO");
}

TEST_F(CheckpointTest, RefusesLinksOutOfTheRoot) {
  TinyLlama().Write(model());
  const fs::path shard = model() / "model.safetensors";
  const ScratchDirectory outside;
  fs::rename(shard, outside.path() / "x");
  fs::create_symlink(outside.path() / "x", shard);
  ExpectRefused(absl::StatusCode::kInvalidArgument, "model.safetensors: leads out");
}

TEST_F(CheckpointTest, RefusesUnreadableFiles) {
  if (geteuid() == 0) {
    GTEST_SKIP() << "root reads everything";
  }
  TinyLlama().Write(model());
  fs::permissions(model() / "model.safetensors", fs::perms::none);
  ExpectRefused(absl::StatusCode::kPermissionDenied, "model.safetensors: ");
}

TEST_F(CheckpointTest, ReadsNumberedShardsWithoutAnIndex) {
  TinyCheckpoint tiny = TinyLlama({.shard_count = 3});
  tiny.write_index = false;
  tiny.Write(model());
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->shards.size(), 3u);
  EXPECT_EQ(checkpoint->tensors.size(), tiny.tensors.size());
  fs::remove(model() / "model-00002-of-00003.safetensors");
  ExpectRefused(absl::StatusCode::kDataLoss, "expected the shards 1 to 3, found 2");
}

TEST_F(CheckpointTest, RefusesTwoSetsOfShardsWithoutAnIndex) {
  TinyCheckpoint tiny = TinyLlama({.shard_count = 2});
  tiny.write_index = false;
  tiny.Write(model());
  fs::copy(model() / "model-00001-of-00002.safetensors",
           model() / "model-00001-of-00003.safetensors");
  ExpectRefused(absl::StatusCode::kDataLoss, "expected one set of shards");
}

TEST_F(CheckpointTest, IgnoresOtherFilesWithAWarning) {
  TinyLlama().Write(model());
  WriteFile(model() / "adapter_model.safetensors", "garbage");
  WriteFile(model() / "tokenizer.json", "{}");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->warnings,
              ElementsAre(AllOf(HasSubstr("adapter_model.safetensors"), HasSubstr("ignored"))));
}

TEST_F(CheckpointTest, IgnoresTensorsOutsideTheIndexWithAWarning) {
  TinyCheckpoint tiny;
  tiny.Add("a", {4}, Dtype::kF32).Add("b", {4}, Dtype::kF32);
  tiny.Write(model());
  WriteFile(model() / kIndex, R"({"weight_map":{"a":"model.safetensors"}})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->tensors.size(), 1u);
  EXPECT_EQ(checkpoint->tensors[0].name, "a");
  EXPECT_THAT(checkpoint->warnings, ElementsAre(HasSubstr("the first is \"b\"")));
}

TEST_F(CheckpointTest, FailsCleanlyWhereverAFileFails) {
  TinyLlama({.shard_count = 2}).Write(model());
  const auto directory = OpenCheckpointDirectory(scratch_.path().string(), "model");
  ASSERT_TRUE(directory.ok());
  for (int64_t call = 0;; ++call) {
    ASSERT_LT(call, 100);
    const auto faulty = std::make_shared<FaultyDirectory>(*directory, call);
    const auto checkpoint = OpenCheckpoint(faulty);
    if (faulty->call_count() <= call) {
      EXPECT_TRUE(checkpoint.ok());
      EXPECT_GT(call, 10);
      break;
    }
    EXPECT_EQ(checkpoint.status().message(), "injected: the disk failed") << call;
  }
}

}  // namespace
}  // namespace nibble
