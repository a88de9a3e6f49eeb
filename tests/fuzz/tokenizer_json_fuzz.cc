// Any bytes as tokenizer.json. What is accepted makes ids of texts that it has tokens for, and text
// of any ids, at once or one by one.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/tokenizer.h"
#include "tests/fuzz/same_verdict.h"

namespace nibble {
namespace {

constexpr absl::string_view kTexts[] = {
    "",
    "Hello, world! don't  1234",
    " \n\t\u3000\u180E",
    "e\u0301\uFB01\u212B\u4F60\u597D\U0001F642",
    "<s><|im_end|>a <mask>b",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};
constexpr uint32_t kIdsMax = 1024;  // Of a large vocabulary the first suffice.

void CheckText(const Tokenizer& tokenizer, const std::vector<uint32_t>& ids) {
  for (const bool skip_special : {false, true}) {
    Detokenizer detokenizer(tokenizer, skip_special);
    std::string text;
    for (const uint32_t id : ids) {
      const std::string piece = detokenizer.Append(id);
      Check(IsUtf8(piece), "a piece is whole characters");
      text += piece;
    }
    text += detokenizer.Finish();
    Check(text == tokenizer.Decode(ids, skip_special), "the pieces are the text");
  }
}

void CheckTokenizer(absl::string_view json) {
  CheckSameVerdict(json);
  const auto parsed = ParseTokenizer("fuzz", json);
  if (!parsed.ok()) {
    const absl::string_view message = parsed.status().message();
    Check(IsUtf8(message) && !HasControlCharacters(message), "messages are printable");
    return;
  }
  const Tokenizer& tokenizer = **parsed;
  std::vector<uint32_t> every_id;
  for (uint32_t id = 0; id < std::min(tokenizer.vocabulary_size() + 1, kIdsMax); ++id) {
    every_id.push_back(id);
    Check(tokenizer.TokenText(id).has_value() == tokenizer.TokenBytes(id).has_value(),
          "a token has a text and bytes");
  }
  CheckText(tokenizer, every_id);
  for (const absl::string_view text : kTexts) {
    for (const bool parse_special : {false, true}) {
      const auto ids = tokenizer.Encode(text, {.parse_special = parse_special});
      if (!ids.ok()) {
        continue;
      }
      for (const uint32_t id : *ids) {
        Check(tokenizer.TokenText(id).has_value(), "an id is that of a token");
      }
      CheckText(tokenizer, *ids);
    }
  }
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  nibble::CheckTokenizer({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
