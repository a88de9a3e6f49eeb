// Golden tokenizers, and small ones written where they are tested.

#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/engine/tokenizer/tokenizer.h"

namespace nibble {

using Json = nlohmann::json;
using Ids = std::vector<uint32_t>;

// One for each kind met in checkpoints: tests/data/README.md.
inline constexpr const char* kGoldenTokenizers[] = {
    "added_token_flags", "bytelevel_digits_sequence", "bytelevel_gpt2",
    "bytelevel_llama3",  "bytelevel_o200k",           "bytelevel_prefix_space",
    "bytelevel_qwen2",   "bytelevel_qwen3_5",         "metaspace_mistral",
    "replace_gemma",     "sentencepiece_llama2",
};

inline std::string ReadGoldenFile(const std::string& tokenizer, const std::string& name) {
  std::ifstream file(absl::StrCat(NIBBLE_TEST_DATA, "/tokenizers/", tokenizer, "/", name),
                     std::ios::binary);
  EXPECT_TRUE(file.good()) << tokenizer << "/" << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

inline Json ReadGoldenCases(const std::string& tokenizer) {
  return Json::parse(ReadGoldenFile(tokenizer, "cases.json"));
}

// Null, with a failed expectation, if `json` is refused.
inline std::unique_ptr<Tokenizer> Parse(const std::string& json) {
  auto tokenizer = ParseTokenizer("tokenizer.json", json);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline std::unique_ptr<Tokenizer> ParseGolden(const std::string& tokenizer) {
  return Parse(ReadGoldenFile(tokenizer, "tokenizer.json"));
}

// A file with the characters of `alphabet` as tokens, ids from 0 in order, and nothing else. Tests
// put in what they are about.
inline Json SmallFile(const std::vector<std::string>& alphabet) {
  Json vocabulary = Json::object();
  for (size_t i = 0; i < alphabet.size(); ++i) {
    vocabulary[alphabet[i]] = i;
  }
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}}}};
}

inline Json AddedTokenJson(const std::string& content, bool special) {
  return {{"id", 0},         {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

// The ids without special tokens around them; a failed expectation for an error.
inline Ids Encode(const Tokenizer& tokenizer, absl::string_view text, bool parse_special = true) {
  const auto ids =
      tokenizer.Encode(text, {.add_special_tokens = false, .parse_special = parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

// The texts of the tokens that `text` becomes.
inline std::vector<std::string> Tokens(const Tokenizer& tokenizer, absl::string_view text,
                                       bool parse_special = true) {
  std::vector<std::string> tokens;
  for (const uint32_t id : Encode(tokenizer, text, parse_special)) {
    tokens.push_back(tokenizer.TokenText(id).value_or("no token"));
  }
  return tokens;
}

}  // namespace nibble
