// The single pre-tokenizers.

#pragma once

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/engine/tokenizer/json_tree.h"
#include "server/engine/tokenizer/pre_tokenizer.h"
#include "server/engine/tokenizer/text_pattern.h"

namespace nibble {

// Splits each piece of `text` into what `find_parts` finds in it.
absl::Status SplitPieces(
    PreTokenizedText& text, SplitBehavior behavior,
    absl::FunctionRef<absl::Status(Span piece, std::vector<TextPart>& parts)> find_parts);

// Puts in place of each piece what `rewrite` appends for it.
void RewritePieces(
    PreTokenizedText& text,
    absl::FunctionRef<void(size_t piece_index, absl::string_view piece, std::string& rewritten)>
        rewrite);

using PreTokenizerPointer = std::unique_ptr<const PreTokenizerStep>;

// Each reads its members; the types are those of PreTokenizer::Parse.
absl::StatusOr<PreTokenizerPointer> ParseByteLevelStep(const JsonTree& component);
absl::StatusOr<PreTokenizerPointer> ParseMetaspaceStep(const JsonTree& component);
absl::StatusOr<PreTokenizerPointer> ParseSplitStep(const JsonTree& component);
absl::StatusOr<PreTokenizerPointer> ParseDigitsStep(const JsonTree& component);
absl::StatusOr<PreTokenizerPointer> ParsePunctuationStep(const JsonTree& component);
absl::StatusOr<PreTokenizerPointer> ParseCharDelimiterStep(const JsonTree& component);
absl::StatusOr<PreTokenizerPointer> ParseFixedLengthStep(const JsonTree& component);
PreTokenizerPointer MakeWhitespaceStep();
PreTokenizerPointer MakeWhitespaceSplitStep();
PreTokenizerPointer MakeBertStep();

}  // namespace nibble
