#include "server/engine/grammar/grammar_constraint.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/server/engine/grammar/grammar_reader.h"
#include "tests/server/engine/grammar/schema_checker.h"

namespace nibble {
namespace {

constexpr int32_t kEnd = 256;

// Every byte, an end, a special token, and tokens as byte-pair encoding makes them.
std::shared_ptr<const TokenVocabulary> ToyVocabulary() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(std::string(1, static_cast<char>(byte)));
  }
  tokens.insert(tokens.end(),
                {"<end>",   "",      "{\"",      "\":",  "\",\"",    "\"}",      "}}",
                 "[]",      "[{",    ", ",       "\n  ", "null",     "true",     "false",
                 "12",      "0.",    "-1",       "é",    "\xF0\x9F", "\x98\x80", "\\u",
                 "\\ud83d", "value", "children", "name", "ab",       "\"a",      "a\":"});
  return std::make_shared<TokenVocabulary>(std::move(tokens), std::vector<int32_t>{kEnd});
}

std::vector<int32_t> Allowed(TokenConstraint& constraint, int64_t size) {
  std::vector<uint32_t> mask(static_cast<size_t>(size + 31) / 32 + 1, 0xFFFFFFFF);
  constraint.FillMask(mask);
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < std::ssize(mask) * 32; ++id) {
    if ((mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0) {
      ids.push_back(id);
    }
  }
  return ids;
}

TEST(GrammarConstraintTest, AMaskHasTheTokensThatAreRefusedNowhere) {
  const auto grammar = Compiled(R"({"type":"object","properties":{"name":{"type":"string"},
      "value":{"type":["integer","null"]}},"required":["name","value"]})");
  const auto vocabulary = ToyVocabulary();
  const auto constraint = MakeConstraint(grammar, vocabulary);
  std::string text;
  for (const char* token : {"{\"", "name", "\":", "\"a", "é", "\\ud83d", "\\u", "d", "e", "0", "0",
                            "\",\"", "value", "\":", "-1", "2", "}"}) {
    std::vector<int32_t> expected;
    for (int32_t id = 0; id < vocabulary->size(); ++id) {
      const std::string bytes(vocabulary->bytes(id));
      if (id != kEnd && !bytes.empty() &&
          Verdict(*grammar, text + bytes).substr(0, 7) != "refused") {
        expected.push_back(id);
      }
    }
    ASSERT_EQ(Allowed(*constraint, vocabulary->size()), expected) << text;
    int32_t chosen = 0;
    while (vocabulary->bytes(chosen) != token) {
      ++chosen;
    }
    constraint->Accept(chosen);
    text += token;
  }
  EXPECT_EQ(text, R"({"name":"aé\ud83d\ude00","value":-12})");
  EXPECT_EQ(Allowed(*constraint, vocabulary->size()), std::vector<int32_t>{kEnd});
  constraint->Accept(kEnd);
  EXPECT_EQ(Allowed(*constraint, vocabulary->size()), std::vector<int32_t>{kEnd});
}

TEST(GrammarConstraintTest, TheEndIsAllowedWhereAValueIsWhole) {
  const auto vocabulary = ToyVocabulary();
  const auto constraint =
      MakeConstraint(Compiled(R"({"type":"integer","maximum":20})"), vocabulary);
  const auto has_end = [&] {
    const auto ids = Allowed(*constraint, vocabulary->size());
    return std::find(ids.begin(), ids.end(), kEnd) != ids.end();
  };
  EXPECT_FALSE(has_end());
  constraint->Accept('-');
  EXPECT_FALSE(has_end());
  constraint->Accept('7');
  EXPECT_TRUE(has_end());
  constraint->Accept('7');
  EXPECT_TRUE(has_end());
}

TEST(GrammarConstraintTest, OnlyTheEndIsLeftWhereNoTokenGoesOn) {
  const auto vocabulary = std::make_shared<TokenVocabulary>(
      std::vector<std::string>{"{", "x", "<end>"}, std::vector<int32_t>{2});
  const auto constraint = MakeConstraint(JsonObjectGrammar(), vocabulary);
  EXPECT_EQ(Allowed(*constraint, 3), std::vector<int32_t>{0});
  constraint->Accept(0);
  EXPECT_EQ(Allowed(*constraint, 3), std::vector<int32_t>{2});
  // A token that was not allowed is the caller's mistake, and harms nothing.
  constraint->Accept(1);
  constraint->Accept(77);
  EXPECT_EQ(Allowed(*constraint, 3), std::vector<int32_t>{2});
}

// Chooses among allowed tokens until the end; now and then one that closes something, else strings
// of random bytes would hardly end.
std::string RandomText(TokenConstraint& constraint, const TokenVocabulary& vocabulary,
                       std::mt19937& random) {
  std::string text;
  for (int step = 0; step < 20'000; ++step) {
    const std::vector<int32_t> allowed = Allowed(constraint, vocabulary.size());
    if (allowed.empty()) {
      ADD_FAILURE() << "no token after " << text;
      return text;
    }
    int32_t id = allowed[random() % allowed.size()];
    if (random() % 3 == 0) {
      for (const int32_t closing : {int32_t{'"'}, int32_t{']'}, int32_t{'}'}, kEnd}) {
        if (std::find(allowed.begin(), allowed.end(), closing) != allowed.end()) {
          id = closing;
        }
      }
    }
    if (id == kEnd) {
      return text;
    }
    text += std::string(vocabulary.bytes(id));
    constraint.Accept(id);
  }
  ADD_FAILURE() << "no end after 20,000 tokens: " << text.substr(0, 1000);
  return text;
}

void ExpectWalksSatisfy(const std::string& schema, int walks) {
  const auto grammar = Compiled(schema);
  const auto vocabulary = ToyVocabulary();
  const SchemaChecker checker(nlohmann::json::parse(schema));
  std::mt19937 random(7);
  for (int walk = 0; walk < walks; ++walk) {
    const auto constraint = MakeConstraint(grammar, vocabulary);
    const std::string text = RandomText(*constraint, *vocabulary, random);
    const auto value = nlohmann::json::parse(text, nullptr, false);
    ASSERT_FALSE(value.is_discarded()) << schema << "\n" << text;
    ASSERT_TRUE(checker.Holds(value)) << schema << "\n" << text;
  }
}

TEST(GrammarConstraintTest, RandomWalksSatisfyTheirSchema) {
  const char* schemas[] = {
      R"({"type":"object"})",
      R"({})",
      R"({"type":"object","properties":{"b":{"type":"integer","minimum":-5,"maximum":1200},
          "a":{"type":"string","minLength":2,"maxLength":5},"c":{"enum":["x","y",null,1.5]}},
          "required":["a"],"additionalProperties":{"type":"boolean"}})",
      R"({"type":"array","items":{"type":["string","number","null"]},"minItems":2,"maxItems":6})",
      R"({"type":"array","prefixItems":[{"const":{"k":[1,"é"]}},{"type":"boolean"}],
          "items":{"type":"integer","exclusiveMinimum":-100,"exclusiveMaximum":100},"minItems":1})",
      R"({"type":"object","properties":{"p":{"type":"string","pattern":"^[A-C]{1,3}-\\d+$"},
          "q":{"type":"string","pattern":"b+c?$","maxLength":6}},"required":["p","q"]})",
      R"({"allOf":[{"$ref":"#/$defs/A"},{"properties":{"b":{"type":"null"}},"required":["b"]}],
          "$defs":{"A":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}})",
  };
  for (const char* schema : schemas) {
    ExpectWalksSatisfy(schema, 30);
  }
}

TEST(GrammarConstraintTest, RandomWalksSatisfyWhatPydanticEmits) {
  std::ifstream file(std::string(NIBBLE_TEST_DATA) + "/json_schemas/pydantic.json");
  for (const auto& one : nlohmann::ordered_json::parse(file)) {
    ExpectWalksSatisfy(one["schema"].dump(), 20);
  }
}

// More situations than a run remembers: every count of characters is one.
TEST(GrammarConstraintTest, ForgettingChangesNothing) {
  const auto vocabulary = ToyVocabulary();
  const auto constraint = MakeConstraint(
      Compiled(R"({"type":"array","items":{"type":"string","maxLength":16384,"minLength":16384}})"),
      vocabulary);
  constraint->Accept('[');
  for (int item = 0; item < 3; ++item) {
    constraint->Accept('"');
    for (int i = 0; i < 16'384; ++i) {
      constraint->Accept('x');
    }
    EXPECT_EQ(Allowed(*constraint, vocabulary->size()).front(), '"');
    constraint->Accept('"');
    constraint->Accept(',');
  }
  const auto allowed = Allowed(*constraint, vocabulary->size());
  EXPECT_EQ(allowed.front(), '\n');
}

}  // namespace
}  // namespace nibble
