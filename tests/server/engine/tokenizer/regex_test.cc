#include "server/engine/tokenizer/regex.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/tokenizer/regex_syntax.h"
#include "server/engine/tokenizer/text_pattern.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// The pieces of `text` when each match is isolated, or the error.
std::vector<std::string> Pieces(absl::string_view expression, absl::string_view text) {
  const auto pattern = TextPattern::FromRegex(expression);
  if (!pattern.ok()) {
    return {pattern.status().ToString()};
  }
  RegexScratch scratch;
  scratch.Refill(text.size());
  std::vector<TextPart> parts;
  const absl::Status status =
      pattern->FindParts(text, {.begin = 0, .end = text.size()}, scratch, parts);
  if (!status.ok()) {
    return {status.ToString()};
  }
  std::vector<Span> spans;
  SplitParts(parts, SplitBehavior::kIsolated, spans);
  std::vector<std::string> pieces;
  for (const Span span : spans) {
    pieces.emplace_back(span.Of(text));
  }
  return pieces;
}

struct DialectCase {
  const char* expression;
  const char* text;
  std::vector<std::string> pieces;
};

// What `pre_tokenizers.Split(Regex(..), "isolated")` of tokenizers 0.23.3 gives.
TEST(RegexTest, ReadsTheDialectOfOniguruma) {
  const DialectCase cases[] = {
      // clang-format off
    {"\\s+", "a\302\205\341\240\216b\343\200\200c", {"a", "\302\205", "\341\240\216b", "\343\200\200", "c"}},
    {"[\\S]+", "a \341\240\216\302\240b", {"a", " ", "\341\240\216", "\302\240", "b"}},
    {"\\w+", "a\302\262_\303\251\331\243\314\201-b", {"a\302\262_\303\251\331\243\314\201", "-", "b"}},
    {"[\\w]+", "a\302\262b", {"a", "\302\262", "b"}},
    {"\\W", "a\302\262\302\275-", {"a\302\262\302\275", "-"}},
    {"\\bab?", "ab cab a", {"ab", " cab ", "a"}},
    {"\\h+", "xyz0aFg", {"xyz", "0aF", "g"}},
    {"\\v", "a\013\012b", {"a", "\013", "\012b"}},
    {"\\d{1,3}+x", "1234567x", {"1234567x"}},
    {"\\d{2}?x", "x12x", {"x", "12x"}},
    {"a{,2}x", "aaax", {"a", "aax"}},
    {"a+{2}b", "aab", {"aab"}},
    {"a++a?", "aaa", {"aaa"}},
    {"a{x}", "aa{x}", {"a", "a{x}"}},
    {"(?m)a.b", "xa\012b", {"x", "a\012b"}},
    {"a.b", "a\012b", {"a\012b"}},
    {"^a$", "a\012ba\012a", {"a", "\012ba\012", "a"}},
    {"a(?i)b|c", "aBaCCc", {"aB", "aC", "Cc"}},
    {"(?i-m:A)b", "abaB", {"ab", "aB"}},
    {"[a[b[c]]]+", "abcd", {"abc", "d"}},
    {"[\\p{L}&&[^\\p{Han}]]+", "ab\344\275\240c", {"ab", "\344\275\240", "c"}},
    {"[^a&&b]+", "abc", {"abc"}},
    {"[^\\W\\d_]+", "a1_b\303\251", {"a", "1_", "b\303\251"}},
    {"[]a]+", "a]b", {"a]", "b"}},
    {"[a-]+", "a-b", {"a-", "b"}},
    {"\\p{Han}+", "a\344\275\240\343\200\201\343\200\205b", {"a", "\344\275\240", "\343\200\201", "\343\200\205", "b"}},
    {"\\p{Letter}+", "ab1", {"ab", "1"}},
    {"\\p{^L}+", "ab1", {"ab", "1"}},
    {"[[:punct:]]+", "a$!b", {"a", "$!", "b"}},
    {"\\p{Punct}+", "a$!b", {"a$", "!", "b"}},
    {"[[:^alpha:]]+", "a1b", {"a", "1", "b"}},
    {"\\u4f60|\\x{597d}", "\344\275\240\345\245\275", {"\344\275\240", "\345\245\275"}},
    {"(?<=a)b", "abb", {"a", "b", "b"}},
    {"(?<name>a)b", "ab", {"ab"}},
    {"x?", "ab", {"a", "b"}},
    {"", "ab", {"a", "b"}},
    {"(?#note)a", "ba", {"b", "a"}},
    {"(?>a+)b", "aab", {"aab"}},
    {"b\\Kc", "abc", {"ab", "c"}},
    {"\\O", "\012", {"\012"}},
    {"(?i:'s|'t)", "I'S it'T", {"I", "'S", " it", "'T"}},
    {"(?i)\305\277", "sS\305\277", {"s", "S", "\305\277"}},
      // clang-format on
  };
  for (const DialectCase& item : cases) {
    EXPECT_EQ(Pieces(item.expression, item.text), item.pieces) << item.expression;
  }
}

TEST(RegexTest, NamesWhatItDoesNotSupport) {
  const std::pair<const char*, const char*> cases[] = {
      {"(a)\\1", "the escape \\1"},
      {"(?<n>a)\\k<n>", "the escape \\k"},
      {"(?x) a", "the group"},
      {"(*FAIL)", "a verb"},
      {"(?~ab)", "the group"},
      {"(?(1)a|b)", "the group"},
      {"\\p{Klingon}", "Klingon"},
      {"\\pL", "without braces"},
      {"\\xE2", "a byte of a character"},
      {"(?C1)a", "the group"},
  };
  for (const auto& [expression, reason] : cases) {
    const auto regex = Regex::Compile(expression);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kUnimplemented) << expression;
    EXPECT_THAT(std::string(regex.status().message()), HasSubstr(reason));
  }
}

TEST(RegexTest, RefusesWhatIsNoExpression) {
  for (const char* const expression :
       {"(", ")", "[", "[a", "*", "a|*", "{2}", "(?", "(?i", "\\", "[\\", "\\x{", "\\x{110000}",
        "\\ud800", "[a&&]", "(?<n", "[b-a]", "\\u12", "(?<=a*)b"}) {
    const auto regex = Regex::Compile(expression);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument) << expression;
  }
}

TEST(RegexTest, RefusesAnExpressionThatIsTooLong) {
  const auto regex = Regex::Compile(std::string(kRegexBytesMax + 1, 'a'));
  EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(regex.status().message()), HasSubstr("65536"));
}

TEST(RegexTest, RefusesSetsNestedWithoutEnd) {
  const auto regex = Regex::Compile(std::string(10000, '['));
  EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument);
}

class HostileRegexTest : public testing::TestWithParam<const char*> {};

// Each would take hours: quadratic, cubic or exponential in a million characters.
TEST_P(HostileRegexTest, EndsInAnErrorWithinItsLimit) {
  const std::string text(1 << 20, 'a');
  const std::vector<std::string> pieces = Pieces(GetParam(), text);
  ASSERT_EQ(pieces.size(), 1U);
  EXPECT_THAT(pieces[0], HasSubstr("RESOURCE_EXHAUSTED"));
  EXPECT_THAT(pieces[0], HasSubstr("64 steps a byte"));
}

INSTANTIATE_TEST_SUITE_P(Expressions, HostileRegexTest,
                         testing::Values("(a+)+b", "a*a*a*b", "(?:a*+x|a)*b", "a*a*+b", ".*.*=.*",
                                         "(?=(a+))a*b", "a{1,60000}b", "(?:a?){100}b",
                                         "((((a*)*)*)*)*b"));

TEST(RegexTest, WalksAMillionCharactersOfOneKind) {
  // Llama-3's expression on spaces: each alternative is tried over the whole run.
  const char* const expression =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(Pieces(expression, spaces + "x"), (std::vector<std::string>{spaces.substr(1), " x"}));
}

TEST(RegexTest, RepeatsGroupsBeyondItsStack) {
  // A group that is repeated keeps a place to come back to for each turn.
  const std::string text(1 << 17, 'a');
  EXPECT_EQ(Pieces("(?:a|b)+", text), std::vector<std::string>{text});
}

}  // namespace
}  // namespace nibble
