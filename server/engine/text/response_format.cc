#include "server/engine/text/response_format.h"

#include <utility>

#include "server/engine/grammar/grammar_constraint.h"
#include "server/engine/grammar/json_schema.h"

namespace nibble {

absl::StatusOr<ConstraintMaker> MakeJsonFormat(const std::optional<std::string>& schema,
                                               const ModelText& text, int64_t vocabulary_size) {
  absl::StatusOr<std::shared_ptr<const Grammar>> grammar =
      schema.has_value() ? CompileJsonSchema(*schema) : JsonObjectGrammar();
  if (!grammar.ok()) {
    return grammar.status();
  }
  absl::StatusOr<std::shared_ptr<const TokenVocabulary>> vocabulary =
      text.Vocabulary(vocabulary_size);
  if (!vocabulary.ok()) {
    return vocabulary.status();
  }
  return [grammar = *std::move(grammar), vocabulary = *std::move(vocabulary)] {
    return absl::StatusOr<std::unique_ptr<TokenConstraint>>(MakeConstraint(grammar, vocabulary));
  };
}

}  // namespace nibble
