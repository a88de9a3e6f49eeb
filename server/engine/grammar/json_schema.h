// Compiles what a client wants an answer to look like.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/grammar/grammar.h"

namespace nibble {

// Compiles a JSON schema, given as its text because members are written in its order. What is
// supported, and what the text looks like, is in this folder's README.
//
// Errors: UNIMPLEMENTED for a keyword that would not be honoured, by name; INVALID_ARGUMENT for
//   what is no schema, is satisfied by nothing, or exceeds a limit of grammar_limits.h.
// Cost: bounded by kCompileWorkMax.
absl::StatusOr<std::shared_ptr<const Grammar>> CompileJsonSchema(absl::string_view schema);

// A value of a schema between two texts.
struct FramedSchema {
  std::string before;
  std::string schema;
  std::string after;
  std::string name;  // Comes before what is wrong with the schema.
};

// One of `alternatives`, of which there is at least one. If `free_until` is not empty, anything up
// to its first occurrence comes before: what a model thinks before it answers.
//
// Errors: as above.
absl::StatusOr<std::shared_ptr<const Grammar>> CompileFramedSchemas(
    absl::string_view free_until, const std::vector<FramedSchema>& alternatives);

// Any JSON object.
std::shared_ptr<const Grammar> JsonObjectGrammar();

}  // namespace nibble
