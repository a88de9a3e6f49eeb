// The keywords of JSON schema: which are honoured, which say nothing about the value.

#pragma once

#include "absl/strings/string_view.h"
#include "server/engine/grammar/schema_document.h"

namespace nibble {

enum class KeywordKind {
  kAnnotation,   // Says nothing that a value could violate.
  kDefinitions,  // Where $refs point.
  kComposition,  // $ref, allOf, anyOf, oneOf.
  kChoice,       // enum, const, type.
  kString,
  kNumber,
  kArray,
  kObject,
  kUnsupported,  // A constraint that is not honoured, or a word that nobody knows.
};

KeywordKind KindOfKeyword(absl::string_view keyword);

// Whether `schema`, an object, has a member of this kind.
bool HasKind(const SchemaJson& schema, KeywordKind kind);

// Whether `schema` has nothing that a value could violate.
bool AllowsAnything(const SchemaJson& schema);

}  // namespace nibble
