// Post-processors: the special tokens that tokenizer.json puts around the tokens of a text.

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/engine/tokenizer/json_tree.h"

namespace nibble {

// Immutable and thread-safe.
class PostProcessor {
 public:
  // TemplateProcessing (its template for a single text), ByteLevel (which moves offsets alone),
  // BertProcessing, RobertaProcessing, Sequence.
  //
  // Errors: UNIMPLEMENTED for others, naming them; DATA_LOSS for members that are missing or wrong,
  //   and for an id that `is_token` does not know.
  static absl::StatusOr<PostProcessor> Parse(const JsonTree& tree,
                                             absl::FunctionRef<bool(uint32_t id)> is_token);

  // The ids of a text with what the templates put around them.
  std::vector<uint32_t> Apply(std::vector<uint32_t> ids, bool add_special_tokens) const;

 private:
  // An id, or all ids of the text.
  using Template = std::vector<std::optional<uint32_t>>;

  std::vector<Template> templates_;  // Each around the result of the one before.
};

}  // namespace nibble
