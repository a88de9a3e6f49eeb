// A JSON value as a tree, for the small parts of a file whose members may stand in any order.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loader/json_reader.h"

namespace nibble {

struct JsonMember;

struct JsonTree {
  JsonReader::Kind kind = JsonReader::Kind::kNull;
  bool boolean = false;
  double number = 0;
  std::string string;
  std::vector<JsonTree> elements;
  std::vector<JsonMember> members;

  // The value itself, an unsigned integer of 32 bits.
  //
  // Errors: DATA_LOSS if it is something else, named `name` in the message.
  absl::StatusOr<uint32_t> ToCount(absl::string_view name) const;

  bool is_null() const { return kind == JsonReader::Kind::kNull; }

  // Null if the object has no such member, or this is none.
  const JsonTree* Find(absl::string_view name) const;

  // Members of an object by their kind.
  //
  // Errors: DATA_LOSS if there is no such member, or it is of another kind. Where a default is
  // given,
  //   a missing member and null mean that.
  absl::StatusOr<std::string> StringMember(absl::string_view name) const;
  absl::StatusOr<std::string> StringMember(absl::string_view name,
                                           absl::string_view fallback) const;
  absl::StatusOr<bool> BoolMember(absl::string_view name) const;
  absl::StatusOr<bool> BoolMember(absl::string_view name, bool fallback) const;
  absl::StatusOr<uint32_t> CountMember(absl::string_view name) const;
  absl::StatusOr<const JsonTree*> ArrayMember(absl::string_view name) const;
};

struct JsonMember {
  std::string name;
  JsonTree value;
};

// Reads the next value. The reader's own error says if it is no JSON, or a member stands twice.
bool ReadJsonTree(JsonReader& reader, JsonTree& tree);

}  // namespace nibble
