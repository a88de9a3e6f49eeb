// Pre-tokenizers: how tokenizer.json cuts a text into the pieces that the model sees one by one.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/tokenizer/json_tree.h"
#include "server/engine/tokenizer/regex.h"

namespace nibble {

// A text and its pieces, in order, none of them empty. What lies between them was removed.
struct PreTokenizedText {
  std::string text;
  std::vector<Span> pieces = {};
  bool begins_input = false;  // The first piece stands at the beginning of the user's text.
};

// One pre-tokenizer. Immutable and thread-safe.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  virtual absl::Status Apply(PreTokenizedText& text, RegexScratch& scratch) const = 0;
};

// The pre-tokenizers of a file, applied in order. Immutable and thread-safe.
class PreTokenizer {
 public:
  // ByteLevel, Split, Digits, Punctuation, Metaspace, Whitespace, WhitespaceSplit,
  // CharDelimiterSplit, BertPreTokenizer, FixedLength, Sequence.
  //
  // Errors: UNIMPLEMENTED for others, naming them; DATA_LOSS for members that are missing or wrong.
  static absl::StatusOr<PreTokenizer> Parse(const JsonTree& tree);

  // Cuts `text`. `begins_input`: the user's text begins with it.
  //
  // Requires: `text` is valid UTF-8.
  // Errors: those of RegexScratch::Find.
  absl::StatusOr<PreTokenizedText> Apply(std::string text, bool begins_input,
                                         RegexScratch& scratch) const;

 private:
  std::vector<std::unique_ptr<const PreTokenizerStep>> steps_;
};

}  // namespace nibble
