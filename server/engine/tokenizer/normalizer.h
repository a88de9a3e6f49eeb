// Normalizers: what tokenizer.json does to a text before it is cut.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/tokenizer/json_tree.h"
#include "server/engine/tokenizer/regex.h"

namespace nibble {

struct NormalizedText {
  std::string text;
  // The first character of the original was taken away: what comes first now was not first then.
  bool beginning_removed = false;
};

// One normalizer. Immutable and thread-safe.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  virtual absl::Status Apply(NormalizedText& text, RegexScratch& scratch) const = 0;
};

// The normalizers of a file, applied in order. Immutable and thread-safe.
class Normalizer {
 public:
  // NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Prepend, Replace, ByteLevel, Sequence.
  //
  // Errors: UNIMPLEMENTED for others, naming them; DATA_LOSS for members that are missing or wrong.
  static absl::StatusOr<Normalizer> Parse(const JsonTree& tree);

  // Requires: `text` is valid UTF-8.
  // Errors: RESOURCE_EXHAUSTED above kNormalizedBytesMax, and those of RegexScratch::Find.
  absl::StatusOr<NormalizedText> Apply(absl::string_view text, RegexScratch& scratch) const;

 private:
  std::vector<std::unique_ptr<const NormalizerStep>> steps_;
};

}  // namespace nibble
