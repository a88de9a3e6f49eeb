#include "server/engine/grammar/pattern.h"

#include <nlohmann/json.hpp>
#include <regex>
#include <string>

#include "tests/server/engine/grammar/grammar_reader.h"

namespace nibble {
namespace {

std::string Schema(const std::string& pattern) {
  return nlohmann::json{{"type", "string"}, {"pattern", pattern}}.dump();
}

bool Matches(const std::string& pattern, const std::string& text) {
  return Verdict(Schema(pattern), nlohmann::json(text).dump()) == "whole";
}

// The standard library's ECMAScript engine is the reference, over texts of an alphabet that has
// what the patterns look for.
TEST(PatternTest, AgreesWithTheStandardLibrary) {
  const char* patterns[] = {
      "^a*b$",         "a",           "^a",        "b$",        "^(a|b1)+$",
      "^a|1$",         "^[^ab]*$",    "^\\d+$",    "^\\D*$",    "^\\w{1,2}$",
      "^\\s?\\S$",     "^a{2}$",      "^a{1,}$",   "^.a?.$",    "^(?:a|)1$",
      "^[a-b1-]+$",    "^\\x61$",     "^\\u0061$", "^\"\\\\?$", "^(a{0,2}b){2}$",
      "^a+?b*?$",      "^[\\d\\s]+$", "^\\.$",     "",          "^$",
      "^(a(b(1)?)?)?$"};
  const std::string alphabet = "ab1 \"\\.-\n";
  std::vector<std::string> texts = {""};
  for (size_t i = 0; i < texts.size() && texts[i].size() < 3; ++i) {
    for (const char c : alphabet) {
      texts.push_back(texts[i] + c);
    }
  }
  for (const char* pattern : patterns) {
    const auto grammar = Compiled(Schema(pattern));
    // The standard library's $ matches before a line end, JSON schema's does not.
    const std::regex reference(pattern);
    for (const std::string& text : texts) {
      if (text.find('\n') != text.npos &&
          std::string(pattern).find_first_of("^$") != std::string::npos) {
        continue;
      }
      const bool expected = std::regex_search(text, reference);
      EXPECT_EQ(Verdict(*grammar, nlohmann::json(text).dump()) == "whole", expected)
          << pattern << " on " << nlohmann::json(text).dump();
    }
  }
}

TEST(PatternTest, KnowsCharactersBeyondAscii) {
  EXPECT_TRUE(Matches("^[à-ü]$", "é"));
  EXPECT_FALSE(Matches("^[à-ü]$", "e"));
  EXPECT_TRUE(Matches("^.$", "😀"));
  EXPECT_TRUE(Matches("^[^a]$", "\xF4\x8F\xBF\xBF"));
  EXPECT_TRUE(Matches("^\\u20ac$", "€"));
  EXPECT_FALSE(Matches("^.$", "\n"));
  EXPECT_TRUE(Matches("^\\s$", "\u3000"));
}

TEST(PatternTest, NamesWhatItCannotFollow) {
  const std::pair<const char*, const char*> cases[] = {
      {"(?=a)", "(?"},   {"(?<!a)b", "(?"},   {"a\\b", "\\b"},   {"(a)\\1", "\\1"},
      {"\\p{L}", "\\p"}, {"a(^b)", "^ or $"}, {"a$b", "^ or $"}, {"\\u{61}", "\\u{}"}};
  for (const auto& [pattern, named] : cases) {
    const auto grammar = CompileJsonSchema(Schema(pattern));
    EXPECT_EQ(grammar.status().code(), absl::StatusCode::kUnimplemented) << pattern;
    EXPECT_NE(grammar.status().message().find(named), std::string::npos) << grammar.status();
  }
  for (const char* pattern :
       {"(", ")", "[a", "*", "a{2,1}", "a{x}", "[b-a]", "\\", "a{99999}", "\\xg1"}) {
    EXPECT_EQ(CompileJsonSchema(Schema(pattern)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << pattern;
  }
}

TEST(PatternTest, CatastrophicPatternsAreRefused) {
  const char* patterns[] = {"^((a{1000}){1000}){1000}$", "^(.*a.{30})$",
                            "((((){1000}){1000}){1000}){1000}", "(x+x+)+(.*a.{25}){4}y"};
  for (const char* pattern : patterns) {
    EXPECT_EQ(CompileJsonSchema(Schema(pattern)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << pattern;
  }
  // Slow only for engines that try one way after the other.
  EXPECT_FALSE(Matches("^(a+)+$", std::string(5000, 'a') + "b"));
  EXPECT_TRUE(Matches("^(a+)+$", std::string(5000, 'a')));
  const std::string groups = std::string(10'000, '(') + std::string(10'000, ')');
  EXPECT_EQ(CompileJsonSchema(Schema(groups)).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
