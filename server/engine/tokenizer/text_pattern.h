// Where a piece of text is cut: at a string, a regular expression, or a kind of character; and what
// becomes of the cut-out parts.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/tokenizer/regex.h"

namespace nibble {

// A part of a text: a match, or what lies between two matches.
struct TextPart {
  Span span;
  bool is_match = false;
};

// Immutable and thread-safe.
class TextPattern {
 public:
  // Errors: those of Regex::Compile.
  static absl::StatusOr<TextPattern> FromString(absl::string_view literal);
  static absl::StatusOr<TextPattern> FromRegex(absl::string_view expression);

  // Appends to `parts` the parts of text.substr(span), in order, together the whole span; matches
  // may be empty. Offsets count from the beginning of `text`, but the pattern sees the span alone.
  //
  // Errors: those of RegexScratch::Find.
  absl::Status FindParts(absl::string_view text, Span span, RegexScratch& scratch,
                         std::vector<TextPart>& parts) const;

  // The string that is looked for; empty for a regular expression.
  const std::string& literal() const { return literal_; }

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

// As FindParts, with each character a match for which `matches` holds.
void FindCharacterParts(absl::string_view text, Span span,
                        absl::FunctionRef<bool(uint32_t code)> matches,
                        std::vector<TextPart>& parts);

// What becomes of the matches, as tokenizer.json names it.
enum class SplitBehavior {
  kRemoved,
  kIsolated,            // Each match is a piece of its own.
  kMergedWithPrevious,  // A match ends the piece before it.
  kMergedWithNext,      // A match begins the piece after it.
  kContiguous,          // As kIsolated, but matches that touch are one piece.
};

// Appends to `pieces` what `parts` give under `behavior`, without the empty ones.
void SplitParts(const std::vector<TextPart>& parts, SplitBehavior behavior,
                std::vector<Span>& pieces);

}  // namespace nibble
