#include "server/engine/tokenizer/json_tree.h"

#include <cmath>
#include <limits>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "loader/printable.h"

namespace nibble {
namespace {

using Kind = JsonReader::Kind;

absl::Status Expected(absl::string_view name, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(name, ": expected ", what));
}

bool ReadMembers(JsonReader& reader, JsonTree& tree) {
  absl::flat_hash_set<std::string> names;
  std::string name;
  reader.EnterObject();
  while (reader.NextMember(name)) {
    if (!names.insert(name).second) {
      return reader.Refuse(absl::StrCat("the member ", Printable(name), " stands twice"));
    }
    tree.members.push_back({.name = name, .value = {}});
    if (!ReadJsonTree(reader, tree.members.back().value)) {
      return false;
    }
  }
  return reader.status().ok();
}

}  // namespace

const JsonTree* JsonTree::Find(absl::string_view name) const {
  for (const auto& [member_name, value] : members) {
    if (member_name == name) {
      return &value;
    }
  }
  return nullptr;
}

absl::StatusOr<std::string> JsonTree::StringMember(absl::string_view name) const {
  const JsonTree* const value = Find(name);
  if (value == nullptr || value->kind != Kind::kString) {
    return Expected(name, "a string");
  }
  return value->string;
}

absl::StatusOr<std::string> JsonTree::StringMember(absl::string_view name,
                                                   absl::string_view fallback) const {
  const JsonTree* const value = Find(name);
  return value == nullptr || value->is_null() ? std::string(fallback) : StringMember(name);
}

absl::StatusOr<bool> JsonTree::BoolMember(absl::string_view name) const {
  const JsonTree* const value = Find(name);
  if (value == nullptr || value->kind != Kind::kBool) {
    return Expected(name, "true or false");
  }
  return value->boolean;
}

absl::StatusOr<bool> JsonTree::BoolMember(absl::string_view name, bool fallback) const {
  const JsonTree* const value = Find(name);
  return value == nullptr || value->is_null() ? fallback : BoolMember(name);
}

absl::StatusOr<uint32_t> JsonTree::ToCount(absl::string_view name) const {
  if (kind != Kind::kNumber || number < 0 || number > std::numeric_limits<uint32_t>::max() ||
      number != std::floor(number)) {
    return Expected(name, "an unsigned integer of 32 bits");
  }
  return static_cast<uint32_t>(number);
}

absl::StatusOr<uint32_t> JsonTree::CountMember(absl::string_view name) const {
  const JsonTree* const value = Find(name);
  return (value == nullptr ? JsonTree() : *value).ToCount(name);
}

absl::StatusOr<const JsonTree*> JsonTree::ArrayMember(absl::string_view name) const {
  const JsonTree* const value = Find(name);
  if (value == nullptr || value->kind != Kind::kArray) {
    return Expected(name, "an array");
  }
  return value;
}

// The reader bounds the depth, and with it this recursion.
bool ReadJsonTree(JsonReader& reader, JsonTree& tree) {
  tree.kind = reader.Peek();
  switch (tree.kind) {
    case Kind::kObject:
      return ReadMembers(reader, tree);
    case Kind::kArray:
      reader.EnterArray();
      while (reader.NextElement()) {
        tree.elements.emplace_back();
        if (!ReadJsonTree(reader, tree.elements.back())) {
          return false;
        }
      }
      return reader.status().ok();
    case Kind::kString:
      return reader.ReadString(tree.string);
    case Kind::kNumber:
      return reader.ReadDouble(tree.number);
    case Kind::kBool:
      return reader.ReadBool(tree.boolean);
    default:
      return reader.SkipValue();
  }
}

}  // namespace nibble
