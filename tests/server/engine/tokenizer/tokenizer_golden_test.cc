// Every kind of tokenizer against the `tokenizers` library's results.

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/engine/tokenizer/tokenizer_test_data.h"

namespace nibble {
namespace {

class TokenizerGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    tokenizer_ = ParseGolden(GetParam());
    cases_ = ReadGoldenCases(GetParam());
    ASSERT_NE(tokenizer_, nullptr);
    ASSERT_GT(cases_.size(), 200U);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  Json cases_;
};

TEST_P(TokenizerGoldenTest, EncodesAsTheLibraryDoes) {
  int encoded = 0;
  for (const Json& item : cases_) {
    if (!item.contains("text")) {
      continue;
    }
    ++encoded;
    const auto text = item["text"].get<std::string>();
    const auto with_special = tokenizer_->Encode(text, {});
    ASSERT_TRUE(with_special.ok()) << with_special.status();
    EXPECT_EQ(*with_special, item["ids"].get<Ids>()) << item["text"];
    EXPECT_EQ(Encode(*tokenizer_, text), item["ids_without_special"].get<Ids>()) << item["text"];
  }
  EXPECT_GT(encoded, 150);
}

TEST_P(TokenizerGoldenTest, DecodesAsTheLibraryDoes) {
  for (const Json& item : cases_) {
    const Ids ids = item.contains("text") ? item["ids_without_special"].get<Ids>()
                                          : item["decode_ids"].get<Ids>();
    EXPECT_EQ(tokenizer_->Decode(ids, /*skip_special=*/false), item["decoded"]) << Json(ids);
    EXPECT_EQ(tokenizer_->Decode(ids, /*skip_special=*/true), item["decoded_skip_special"])
        << Json(ids);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryKind, TokenizerGoldenTest, testing::ValuesIn(kGoldenTokenizers),
                         [](const auto& kind) { return std::string(kind.param); });

}  // namespace
}  // namespace nibble
