#include "server/engine/grammar/json_schema.h"

#include <utility>

#include "kernels/check.h"
#include "server/engine/grammar/determinize.h"
#include "server/engine/grammar/schema_compiler.h"
#include "server/engine/grammar/schema_document.h"

namespace nibble {

absl::StatusOr<std::shared_ptr<const Grammar>> CompileJsonSchema(absl::string_view schema) {
  const auto document = ReadSchema(schema);
  if (!document.ok()) {
    return document.status();
  }
  GrammarBuilder builder;
  const int32_t whole = SchemaCompiler(builder, *document).Compile();
  if (!builder.ok()) {
    return builder.status();
  }
  auto grammar = Determinize(builder, whole);
  if (!grammar.ok()) {
    return grammar.status();
  }
  return std::make_shared<const Grammar>(*std::move(grammar));
}

std::shared_ptr<const Grammar> JsonObjectGrammar() {
  const auto grammar = CompileJsonSchema(R"({"type":"object"})");
  Check(grammar.ok(), "any object has a grammar");
  return *grammar;
}

}  // namespace nibble
