// Reads the keys of config.json that only the forward pass needs.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble {

// The keys of the text model's object. A key that is absent or null gives the default; one of
// another type gives it too, and the first of them becomes status().
class RecipeReader {
 public:
  // `level` must outlive the reader; `place` names it in messages ("config.json: ").
  RecipeReader(const nlohmann::json& level, std::string place);

  double Number(absl::string_view key, double otherwise);
  int64_t Integer(absl::string_view key, int64_t otherwise);
  bool Boolean(absl::string_view key, bool otherwise);
  std::string Text(absl::string_view key, absl::string_view otherwise);
  std::vector<std::string> Texts(absl::string_view key);
  std::vector<int64_t> Integers(absl::string_view key);

  // Whether the key is there and not null.
  bool Has(absl::string_view key) const { return Find(key) != nullptr; }

  // Whether the key is there, null or not.
  bool Mentions(absl::string_view key) const;

  // The object of a key, or an empty one.
  RecipeReader Object(absl::string_view key);

  // Notes the status of another reader.
  void Update(const RecipeReader& other) { status_.Update(other.status()); }

  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(absl::string_view key) const;
  void Unexpected(absl::string_view key, const char* expected, const nlohmann::json& found);

  const nlohmann::json& level_;
  std::string place_;
  absl::Status status_;
};

}  // namespace nibble
