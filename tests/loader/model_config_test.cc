#include "loader/model_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::StatusOr<ModelConfig> Parse(absl::string_view json) {
  return ParseModelConfig("config.json", json);
}

// A Llama with `members` beside its model_type.
absl::StatusOr<ModelConfig> Llama(absl::string_view members) {
  return Parse(absl::StrCat(R"({"model_type":"llama",)", members, "}"));
}

TEST(ModelConfigTest, ReadsALlama) {
  const auto config = Parse(R"({"architectures":["LlamaForCausalLM"],"model_type":"llama",
      "hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,
      "num_attention_heads":32,"num_key_value_heads":8,"vocab_size":128256,
      "max_position_embeddings":131072,"tie_word_embeddings":true,"rms_norm_eps":1e-05,
      "rope_scaling":{"factor":8.0,"rope_type":"llama3"},"pad_token_id":null})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model_type, "llama");
  EXPECT_EQ(config->architecture, "LlamaForCausalLM");
  EXPECT_EQ(config->hidden_size, 4096);
  EXPECT_EQ(config->intermediate_size, 14336);
  EXPECT_EQ(config->layer_count, 32);
  EXPECT_EQ(config->head_count, 32);
  EXPECT_EQ(config->key_value_head_count, 8);
  EXPECT_EQ(config->head_size, 128);
  EXPECT_EQ(config->vocabulary_size, 128256);
  EXPECT_EQ(config->context_tokens_max, 131072);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_EQ(config->quantization_method, "");
}

TEST(ModelConfigTest, TakesNullForNothing) {
  const auto config = Llama(
      R"("hidden_size":64,"num_attention_heads":4,"num_key_value_heads":null,"head_dim":null,
         "quantization_config":null,"text_config":null,"tie_word_embeddings":null)");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_size, 16);
  EXPECT_EQ(config->key_value_head_count, 4);
  EXPECT_EQ(config->quantization_method, "");
  EXPECT_FALSE(config->tied_embeddings);
}

TEST(ModelConfigTest, PrefersHeadDimToTheQuotient) {
  EXPECT_EQ(Llama(R"("hidden_size":64,"num_attention_heads":4,"head_dim":48)")->head_size, 48);
  EXPECT_EQ(Llama(R"("hidden_size":65,"num_attention_heads":4)")->head_size, 0);
  // Qwen3's config class has a default of its own.
  EXPECT_EQ(Parse(R"({"model_type":"qwen3","hidden_size":64,"num_attention_heads":4})")->head_size,
            128);
}

TEST(ModelConfigTest, KnowsTheNamesOfExpertSizes) {
  const auto qwen =
      Parse(R"({"model_type":"qwen3_moe","num_experts":128,"moe_intermediate_size":768})");
  EXPECT_EQ(qwen->expert_count, 128);
  EXPECT_EQ(qwen->expert_intermediate_size, 768);
  EXPECT_EQ(Parse(R"({"model_type":"qwen3_moe","num_local_experts":8})")->expert_count, 8);
  const auto mixtral =
      Parse(R"({"model_type":"mixtral","num_local_experts":8,"intermediate_size":14336})");
  EXPECT_EQ(mixtral->expert_count, 8);
  EXPECT_EQ(mixtral->expert_intermediate_size, 14336);
}

TEST(ModelConfigTest, ReadsTheTextPartOfAVisionLanguageModel) {
  const auto config = Parse(R"({"model_type":"qwen3_5_moe","architectures":["X"],
      "tie_word_embeddings":false,"vision_config":{"hidden_size":1152,"depth":27},
      "text_config":{"model_type":"qwen3_5_moe_text","hidden_size":2048,"num_experts":256,
        "moe_intermediate_size":512,"shared_expert_intermediate_size":512,
        "linear_num_key_heads":16,"linear_num_value_heads":32,"linear_key_head_dim":128,
        "linear_value_head_dim":128,"linear_conv_kernel_dim":4,"num_attention_heads":16,
        "num_key_value_heads":2,"head_dim":256}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model_type, "qwen3_5_moe_text");
  EXPECT_EQ(config->architecture, "X");
  EXPECT_EQ(config->hidden_size, 2048);
  EXPECT_EQ(config->expert_count, 256);
  EXPECT_EQ(config->shared_expert_intermediate_size, 512);
  EXPECT_EQ(config->linear_value_head_count, 32);
  EXPECT_EQ(config->linear_conv_kernel_size, 4);
}

TEST(ModelConfigTest, FillsInWhatGemma3LeavesToItsConfigClass) {
  // As google/gemma-3-4b-it has it.
  const auto config = Parse(R"({"architectures":["Gemma3ForConditionalGeneration"],
      "model_type":"gemma3","text_config":{"hidden_size":2560,"intermediate_size":10240,
      "model_type":"gemma3_text","num_hidden_layers":34,"sliding_window":1024},
      "vision_config":{"hidden_size":1152}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_count, 8);
  EXPECT_EQ(config->key_value_head_count, 4);
  EXPECT_EQ(config->head_size, 256);
  EXPECT_EQ(config->vocabulary_size, 262208);
  EXPECT_TRUE(config->tied_embeddings);
}

TEST(ModelConfigTest, NestsUnknownFamiliesOnlyWithoutSizesOfTheirOwn) {
  EXPECT_EQ(Parse(R"({"model_type":"x","text_config":{"hidden_size":8}})")->hidden_size, 8);
  EXPECT_EQ(Parse(R"({"model_type":"x","text_config":{"hidden_size":8}})")->model_type, "x");
  EXPECT_EQ(Parse(R"({"hidden_size":4,"model_type":"x",
                      "text_config":{"model_type":"y","hidden_size":8}})")
                ->model_type,
            "x");
}

TEST(ModelConfigTest, TiesEmbeddingsAsTheFamilyDoes) {
  const auto tied = [](absl::string_view json) { return Parse(json)->tied_embeddings; };
  EXPECT_FALSE(tied(R"({"model_type":"llama"})"));
  EXPECT_FALSE(tied(R"({"model_type":"never_seen"})"));
  EXPECT_TRUE(tied(R"({"model_type":"gemma2"})"));
  EXPECT_TRUE(tied(R"({"model_type":"gemma3_text"})"));
  EXPECT_TRUE(tied(R"({"model_type":"cohere"})"));
  EXPECT_FALSE(tied(R"({"model_type":"cohere","tie_word_embeddings":false})"));
  EXPECT_TRUE(tied(R"({"model_type":"qwen3_5","tie_word_embeddings":true,"text_config":{}})"));
  EXPECT_FALSE(tied(R"({"model_type":"qwen3_5","tie_word_embeddings":true,
                        "text_config":{"tie_word_embeddings":false}})"));
}

TEST(ModelConfigTest, NamesTheQuantizationMethod) {
  const auto method = [](absl::string_view quantization) {
    const auto config = Llama(absl::StrCat(R"("quantization_config":)", quantization));
    return config.ok() ? config->quantization_method : std::string(config.status().message());
  };
  EXPECT_EQ(method(R"({"quant_method":"gptq","bits":4})"), "gptq");
  EXPECT_EQ(method(R"({"quant_method":"bitsandbytes","load_in_4bit":true})"), "bitsandbytes");
  EXPECT_EQ(method(R"({"quant_method":"bitsandbytes","load_in_8bit":true})"), "bitsandbytes_8bit");
  EXPECT_EQ(method(R"({"load_in_4bit":true})"), "bitsandbytes");
  EXPECT_THAT(method("{}"), HasSubstr("expected quant_method, found none"));
  EXPECT_EQ(Parse(R"({"model_type":"x","text_config":{"hidden_size":8,
                      "quantization_config":{"quant_method":"awq"}}})")
                ->quantization_method,
            "awq");
}

TEST(ModelConfigTest, ReadsTheBlocksOfF8Scales) {
  const auto blocks = [](absl::string_view members) {
    const auto config =
        Llama(absl::StrCat(R"("quantization_config":{"quant_method":"fp8")", members, "}"));
    return config.ok() ? absl::StrCat(config->f8_block_rows, "x", config->f8_block_columns)
                       : std::string(config.status().message());
  };
  EXPECT_EQ(blocks(R"(,"weight_block_size":[128,64])"), "128x64");
  EXPECT_EQ(blocks(R"(,"weight_block_size":null)"), "0x0");
  EXPECT_EQ(blocks(""), "128x128");
  for (const char* value : {"128", "[128]", "[128,128,128]", "[]", "[0,128]", "[128,-1]",
                            "[128,1073741825]", "[1.5,1]", "{}", "\"128\""}) {
    EXPECT_THAT(blocks(absl::StrCat(R"(,"weight_block_size":)", value)),
                StartsWith("config.json: quantization_config.weight_block_size: "))
        << value;
  }
  EXPECT_EQ(Llama(R"("quantization_config":{"quant_method":"bitsandbytes"})")->f8_block_rows, 0);
  EXPECT_EQ(Llama(R"("hidden_size":64)")->f8_block_rows, 0);
}

TEST(ModelConfigTest, AllowsWhatPythonWritesAndOtherFamiliesHave) {
  EXPECT_TRUE(Llama(R"("time_step_limit":[0.0,Infinity],"x":NaN)").ok());
  EXPECT_EQ(Llama(R"("intermediate_size":[16,32])")->intermediate_size, 0);
  const auto gpt = Parse(R"({"model_type":"gpt2","n_embd":768,"n_layer":12,"n_head":12,
                             "n_positions":1024,"vocab_size":50257})");
  EXPECT_EQ(gpt->hidden_size, 768);
  EXPECT_EQ(gpt->layer_count, 12);
  EXPECT_EQ(gpt->head_size, 64);
  EXPECT_EQ(gpt->context_tokens_max, 1024);
}

TEST(ModelConfigTest, RefusesHostileNumbersByKey) {
  for (const char* value :
       {"-1", "0", "1.5", "4096.0", "1e3", "-0", "9223372036854775808", "18446744073709551616",
        "1073741825", "\"64\"", "true", "{}", "NaN", "1e999"}) {
    const auto config = Llama(absl::StrCat(R"("hidden_size":)", value));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kDataLoss) << value;
    EXPECT_THAT(std::string(config.status().message()), StartsWith("config.json: hidden_size: "))
        << value;
  }
  EXPECT_THAT(std::string(Llama(R"("num_attention_heads":0)").status().message()),
              HasSubstr("num_attention_heads: at byte"));
  EXPECT_FALSE(Llama(R"("num_hidden_layers":65537)").ok());
  const auto nested = Parse(R"({"model_type":"x","text_config":{"vocab_size":-1}})");
  EXPECT_THAT(std::string(nested.status().message()),
              HasSubstr("config.json: text_config.vocab_size: "));
}

TEST(ModelConfigTest, NeverDividesByZeroOrOverflows) {
  const auto config =
      Llama(R"("hidden_size":1073741824,"num_attention_heads":65536,"head_dim":1073741824)");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(Llama(R"("hidden_size":64)")->head_size, 0);
  EXPECT_EQ(Llama(R"("num_attention_heads":4)")->head_size, 0);
}

TEST(ModelConfigTest, RefusesAFileWithoutModelType) {
  for (const char* json : {"{}", R"({"model_type":null})", R"({"model_type":""})",
                           R"({"text_config":{"model_type":"llama"}})"}) {
    EXPECT_EQ(Parse(json).status(),
              absl::DataLossError("config.json: expected model_type, found none"))
        << json;
  }
}

TEST(ModelConfigTest, RefusesKeysThatStandTwice) {
  EXPECT_THAT(std::string(Llama(R"("a":1,"a":1)").status().message()), HasSubstr("a: at byte"));
  EXPECT_FALSE(Llama(R"("model_type":"llama")").ok());
  EXPECT_FALSE(Llama(R"("text_config":{"a":1,"a":2})").ok());
  EXPECT_FALSE(Llama(R"("quantization_config":{"quant_method":"x","quant_method":"x"})").ok());
}

TEST(ModelConfigTest, RefusesMalformedFiles) {
  for (const std::string& json :
       {std::string(""), std::string("[]"), std::string("{"), std::string("\xEF\xBB\xBF{}"),
        std::string(R"({"model_type":"llama"}x)"), std::string(R"({"model_type":3})"),
        std::string(R"({"model_type":"a\u0000b"})"), std::string("{\"model_type\":\"\xFF\"}"),
        R"({"model_type":"llama","x":)" + std::string(64, '[') + std::string(64, ']') + "}"}) {
    EXPECT_EQ(Parse(json).status().code(), absl::StatusCode::kDataLoss) << json;
  }
  EXPECT_THAT(std::string(Parse(std::string((16 << 20) + 1, ' ')).status().message()),
              HasSubstr("expected at most 16777216 bytes, found 16777217"));
}

}  // namespace
}  // namespace nibble
