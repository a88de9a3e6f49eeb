#include "server/engine/recipe_reader.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace nibble {

using Json = nlohmann::json;

RecipeReader::RecipeReader(const Json& level, std::string place)
    : level_(level), place_(std::move(place)) {}

const Json* RecipeReader::Find(absl::string_view key) const {
  if (!level_.is_object()) {
    return nullptr;
  }
  const auto found = level_.find(std::string(key));
  return found == level_.end() || found->is_null() ? nullptr : &*found;
}

bool RecipeReader::Mentions(absl::string_view key) const {
  return level_.is_object() && level_.contains(std::string(key));
}

void RecipeReader::Unexpected(absl::string_view key, const char* expected, const Json& found) {
  status_.Update(absl::DataLossError(absl::StrCat(place_, "\"", std::string(key), "\": expected ",
                                                  expected, ", found ", found.type_name())));
}

double RecipeReader::Number(absl::string_view key, double otherwise) {
  const Json* const value = Find(key);
  if (value == nullptr) {
    return otherwise;
  }
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    Unexpected(key, "a finite number", *value);
    return otherwise;
  }
  return value->get<double>();
}

int64_t RecipeReader::Integer(absl::string_view key, int64_t otherwise) {
  constexpr int64_t kMax = int64_t{1} << 40;
  const Json* const value = Find(key);
  if (value == nullptr) {
    return otherwise;
  }
  if (!value->is_number_integer() || value->get<int64_t>() < 0 || value->get<int64_t>() > kMax) {
    Unexpected(key, "an integer from 0 to 2^40", *value);
    return otherwise;
  }
  return value->get<int64_t>();
}

bool RecipeReader::Boolean(absl::string_view key, bool otherwise) {
  const Json* const value = Find(key);
  if (value != nullptr && !value->is_boolean()) {
    Unexpected(key, "true or false", *value);
    return otherwise;
  }
  return value == nullptr ? otherwise : value->get<bool>();
}

std::string RecipeReader::Text(absl::string_view key, absl::string_view otherwise) {
  const Json* const value = Find(key);
  if (value != nullptr && !value->is_string()) {
    Unexpected(key, "a string", *value);
    return std::string(otherwise);
  }
  return value == nullptr ? std::string(otherwise) : value->get<std::string>();
}

std::vector<std::string> RecipeReader::Texts(absl::string_view key) {
  std::vector<std::string> texts;
  const Json* const value = Find(key);
  if (value == nullptr) {
    return texts;
  }
  if (!value->is_array()) {
    Unexpected(key, "an array of strings", *value);
    return texts;
  }
  for (const Json& element : *value) {
    if (!element.is_string()) {
      Unexpected(key, "an array of strings", element);
      return {};
    }
    texts.push_back(element.get<std::string>());
  }
  return texts;
}

std::vector<int64_t> RecipeReader::Integers(absl::string_view key) {
  std::vector<int64_t> integers;
  const Json* const value = Find(key);
  if (value == nullptr) {
    return integers;
  }
  if (!value->is_array()) {
    Unexpected(key, "an array of integers", *value);
    return integers;
  }
  for (const Json& element : *value) {
    if (!element.is_number_integer()) {
      Unexpected(key, "an array of integers", element);
      return {};
    }
    integers.push_back(element.get<int64_t>());
  }
  return integers;
}

RecipeReader RecipeReader::Object(absl::string_view key) {
  static const Json empty = Json::object();
  const Json* const value = Find(key);
  if (value != nullptr && !value->is_object()) {
    Unexpected(key, "an object", *value);
  }
  const bool usable = value != nullptr && value->is_object();
  return {usable ? *value : empty, absl::StrCat(place_, std::string(key), ": ")};
}

}  // namespace nibble
