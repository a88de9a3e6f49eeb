// A megabyte of anything is tokenized in time: a quadratic merge, search or sort would take hours,
// and the test's time limit ends it.

#include <string>

#include "gtest/gtest.h"
#include "tests/server/engine/tokenizer/tokenizer_test_data.h"

namespace nibble {
namespace {

constexpr size_t kTextBytes = 1 << 20;

std::string Repeated(const std::string& unit) {
  std::string text;
  while (text.size() < kTextBytes) {
    text += unit;
  }
  return text;
}

// What the library gives back: one kind puts a space before a text that begins with none, and keeps
// it; another takes one off a text that begins with spaces.
std::string ExpectedBack(const std::string& tokenizer, const std::string& text) {
  if (tokenizer == "bytelevel_prefix_space" && text[0] != ' ') {
    return " " + text;
  }
  return tokenizer == "metaspace_mistral" && text[0] == ' ' ? text.substr(1) : text;
}

class LongTextTest : public testing::TestWithParam<const char*> {};

TEST_P(LongTextTest, GoesToIdsAndBackInTime) {
  const auto tokenizer = ParseGolden(GetParam());
  for (const char* const unit :
       {"a", "abcdefghij", " ", "\n", "7", "0123456789", "🙂", "\x01", "你"}) {
    const std::string text = Repeated(unit);
    const Ids ids = Encode(*tokenizer, text);
    EXPECT_GT(ids.size(), kTextBytes / 64) << unit;
    EXPECT_TRUE(tokenizer->Decode(ids, /*skip_special=*/false) == ExpectedBack(GetParam(), text))
        << unit;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryKind, LongTextTest,
                         testing::Values("bytelevel_gpt2", "bytelevel_llama3", "bytelevel_o200k",
                                         "bytelevel_qwen3_5", "bytelevel_digits_sequence",
                                         "bytelevel_prefix_space", "metaspace_mistral",
                                         "replace_gemma", "sentencepiece_llama2"),
                         [](const auto& kind) { return std::string(kind.param); });

}  // namespace
}  // namespace nibble
