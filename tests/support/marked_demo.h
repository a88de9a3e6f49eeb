// The demo model with other words for some of its tokens, so that its answers have the marks of
// models that reason and call tools.

#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/tiny_checkpoint.h"

namespace nibble {

// A token of the answer "Six plus seven is thirteen." that is no part of the question.
inline constexpr char kSix[] = "Six";
inline constexpr char kThirteen[] = "\u0120thirteen";  // With the space before it.

struct MarkedDemo {
  std::map<std::string, std::string> renames = {};  // Tokens as tokenizer.json has them.
  bool are_special = false;
  std::string mention = {};     // What the chat template says in a comment.
  std::string prompt_end = {};  // What it puts at the end of the prompt.
};

// Writes it as the directory `target`.
inline void WriteMarkedDemo(const MarkedDemo& demo, const std::filesystem::path& target) {
  using Json = nlohmann::ordered_json;
  std::filesystem::create_directory(target);
  for (const auto& entry : std::filesystem::directory_iterator(NIBBLE_TEST_DATA "/demo-model")) {
    if (entry.is_regular_file()) {
      std::filesystem::copy_file(entry.path(), target / entry.path().filename());
    }
  }
  Json json = Json::parse(ReadFile(target / "tokenizer.json"));
  Json& model = json["model"];
  for (const auto& [from, to] : demo.renames) {
    const Json id = model["vocab"].at(from);
    model["vocab"].erase(from);
    model["vocab"][to] = id;
    Json merges = Json::array();
    for (const Json& merge : model["merges"]) {
      if (merge[0].get<std::string>() + merge[1].get<std::string>() != from) {
        merges.push_back(merge);
      }
    }
    model["merges"] = std::move(merges);
    json["added_tokens"].push_back({{"id", id},
                                    {"content", to},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", demo.are_special}});
  }
  WriteFile(target / "tokenizer.json", json.dump());
  const std::string source = ReadFile(target / "chat_template.jinja");
  WriteFile(target / "chat_template.jinja",
            "{#- tools: " + demo.mention + " -#}\n" + source + demo.prompt_end);
}

}  // namespace nibble
