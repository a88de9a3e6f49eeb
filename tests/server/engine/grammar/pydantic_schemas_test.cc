// Schemas as pydantic emits them, and documents that it wrote or refused: tests/data/json_schemas.

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/server/engine/grammar/grammar_reader.h"

namespace nibble {
namespace {

nlohmann::ordered_json Cases() {
  std::ifstream file(std::string(NIBBLE_TEST_DATA) + "/json_schemas/pydantic.json");
  return nlohmann::ordered_json::parse(file);
}

TEST(PydanticSchemasTest, ItsDocumentsAreTaken) {
  for (const auto& one : Cases()) {
    const auto grammar = Compiled(one["schema"].dump());
    for (const std::string text : one["valid"]) {
      EXPECT_EQ(Verdict(*grammar, text), "whole") << one["name"] << ": " << text;
    }
  }
}

TEST(PydanticSchemasTest, WhatItRefusesIsRefused) {
  for (const auto& one : Cases()) {
    const auto grammar = Compiled(one["schema"].dump());
    for (const std::string text : one["invalid"]) {
      EXPECT_NE(Verdict(*grammar, text), "whole") << one["name"] << ": " << text;
    }
  }
}

}  // namespace
}  // namespace nibble
