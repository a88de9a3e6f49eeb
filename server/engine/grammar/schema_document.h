// A schema's text, read within limits, and what its $refs point at.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace nibble {

// Members keep the order of the text.
using SchemaJson = nlohmann::ordered_json;

// Reads a schema.
//
// Errors: INVALID_ARGUMENT if it is no JSON, names a member twice, or exceeds kSchemaBytesMax,
//   kSchemaDepthMax or kSchemaMembersMax.
absl::StatusOr<SchemaJson> ReadSchema(absl::string_view text);

// What `ref` points at: "#", or a JSON pointer into `root` ("#/$defs/Name").
//
// Errors: UNIMPLEMENTED for references to elsewhere or to anchors; INVALID_ARGUMENT if nothing is
//   there.
absl::StatusOr<const SchemaJson*> FindReferenced(const SchemaJson& root, absl::string_view ref);

}  // namespace nibble
