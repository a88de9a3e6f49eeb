#include "server/engine/grammar/json_schema.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/engine/grammar/determinize.h"
#include "server/engine/grammar/schema_compiler.h"
#include "server/engine/grammar/schema_document.h"

namespace nibble {
namespace {

// Draws the rule of a schema's values.
absl::StatusOr<int32_t> AddValue(GrammarBuilder& builder, absl::string_view schema) {
  const auto document = ReadSchema(schema);
  if (!document.ok()) {
    return document.status();
  }
  const int32_t value = SchemaCompiler(builder, *document).Compile();
  if (!builder.ok()) {
    return builder.status();
  }
  return value;
}

absl::StatusOr<std::shared_ptr<const Grammar>> Finish(GrammarBuilder& builder, int32_t rule) {
  auto grammar = Determinize(builder, rule);
  if (!grammar.ok()) {
    return grammar.status();
  }
  return std::make_shared<const Grammar>(*std::move(grammar));
}

// How many bytes of `text`'s beginning stand at the end of `read`.
size_t MatchedBytes(absl::string_view read, absl::string_view text) {
  size_t size = std::min(read.size(), text.size());
  while (read.substr(read.size() - size) != text.substr(0, size)) {
    --size;
  }
  return size;
}

// Anything up to the end of the first `text`: node i has read i bytes of it.
GrammarNode AddFreeUntil(GrammarBuilder& builder, GrammarNode from, absl::string_view text) {
  std::vector<GrammarNode> nodes = {from};
  for (size_t size = 0; size < text.size(); ++size) {
    nodes.push_back(builder.AddNode());
  }
  for (size_t matched = 0; matched < text.size(); ++matched) {
    const auto next = [&](int byte) {
      std::string read(text.substr(0, matched));
      read.push_back(static_cast<char>(byte));
      return nodes[MatchedBytes(read, text)];
    };
    int first = 0;
    for (int byte = 1; byte <= 256; ++byte) {
      if (byte == 256 || next(byte) != next(first)) {
        builder.AddBytes(nodes[matched], static_cast<uint8_t>(first),
                         static_cast<uint8_t>(byte - 1), next(first));
        first = byte;
      }
    }
  }
  return nodes.back();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Grammar>> CompileJsonSchema(absl::string_view schema) {
  GrammarBuilder builder;
  const absl::StatusOr<int32_t> value = AddValue(builder, schema);
  if (!value.ok()) {
    return value.status();
  }
  return Finish(builder, *value);
}

absl::StatusOr<std::shared_ptr<const Grammar>> CompileFramedSchemas(
    absl::string_view free_until, const std::vector<FramedSchema>& alternatives) {
  GrammarBuilder builder;
  const int32_t whole = builder.AddRule();
  const GrammarBuilder::Rule ends = builder.rule(whole);
  const GrammarNode start = AddFreeUntil(builder, ends.start, free_until);
  for (const FramedSchema& one : alternatives) {
    const absl::StatusOr<int32_t> value = AddValue(builder, one.schema);
    if (!value.ok()) {
      return absl::Status(value.status().code(), absl::StrCat(one.name, value.status().message()));
    }
    const GrammarNode before = builder.Literal(start, one.before);
    builder.AddEmpty(builder.Literal(builder.Call(before, *value), one.after), ends.end);
  }
  return Finish(builder, whole);
}

std::shared_ptr<const Grammar> JsonObjectGrammar() {
  const auto grammar = CompileJsonSchema(R"({"type":"object"})");
  Check(grammar.ok(), "any object has a grammar");
  return *grammar;
}

}  // namespace nibble
