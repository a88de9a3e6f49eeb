// Makes one schema of several that must all hold: allOf, and a $ref or an anyOf with siblings.

#pragma once

#include "absl/status/statusor.h"
#include "server/engine/grammar/grammar_builder.h"
#include "server/engine/grammar/schema_document.h"

namespace nibble {

// Not thread-safe.
class SchemaMerger {
 public:
  // Both must outlive the merger. Copying counts as work of `builder`.
  SchemaMerger(GrammarBuilder& builder, const SchemaJson& root) : builder_(builder), root_(root) {}

  // The same schema without $ref and allOf on its outermost level.
  //
  // Errors: UNIMPLEMENTED names keywords that cannot be joined; INVALID_ARGUMENT beyond a limit, or
  //   for a $ref that points at nothing.
  absl::StatusOr<SchemaJson> Flatten(const SchemaJson& schema) { return Flatten(schema, 0); }

  // What satisfies both. Either may be true or false.
  absl::StatusOr<SchemaJson> Merge(const SchemaJson& left, const SchemaJson& right) {
    return Merge(left, right, 0);
  }

 private:
  absl::StatusOr<SchemaJson> Flatten(const SchemaJson& schema, int hops);
  absl::StatusOr<SchemaJson> Merge(const SchemaJson& left, const SchemaJson& right, int hops);
  absl::StatusOr<SchemaJson> MergeFlat(const SchemaJson& left, const SchemaJson& right);

  GrammarBuilder& builder_;
  const SchemaJson& root_;
};

}  // namespace nibble
