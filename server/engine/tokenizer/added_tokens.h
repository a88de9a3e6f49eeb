// Added tokens: strings that become one token wherever they stand in a text, before the text is cut
// for the model. Special ones ("<|im_end|>") are among them.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/tokenizer/bpe_model.h"
#include "server/engine/tokenizer/byte_trie.h"
#include "server/engine/tokenizer/json_tree.h"
#include "server/engine/tokenizer/normalizer.h"
#include "server/engine/tokenizer/regex.h"

namespace nibble {

struct AddedToken {
  std::string content;
  bool single_word = false;  // Not within a word.
  bool strips_left = false;  // Takes the white space before it along.
  bool strips_right = false;
  bool normalized = false;  // Looked for in the normalized text, itself normalized.
  bool special = false;     // Left out by a decoder that is told to skip special tokens.

  bool operator==(const AddedToken&) const = default;
};

// A part of a text: an added token, or text between two.
struct TextSegment {
  Span span;
  std::optional<uint32_t> id = {};
};

// Immutable and thread-safe.
class AddedTokens {
 public:
  enum class Pass { kRaw, kNormalized };

  // Reads "added_tokens". Ids are given as the library does: the model's for what it knows, and
  // then one after the other; those of the file are not looked at.
  //
  // Errors: DATA_LOSS for members that are missing or wrong; RESOURCE_EXHAUSTED above
  //   kAddedTokensMax, kAddedTokenBytesMax or kTokenIdsMax; those of Normalizer::Apply.
  static absl::StatusOr<AddedTokens> Parse(const JsonTree* tree, const BpeModel& model,
                                           const Normalizer& normalizer);

  // Appends the segments of `text`, in order, none of the text ones empty: the leftmost tokens, at
  // each place the longest. Without `parse_special` special tokens stay text.
  //
  // Requires: `text` is valid UTF-8.
  void Split(absl::string_view text, Pass pass, bool parse_special,
             std::vector<TextSegment>& segments) const;

  std::optional<uint32_t> IdOf(absl::string_view content) const;
  // The text that decoders get for the id: the content, and of a normalized token the normalized
  // one. Null if no added token has the id.
  const std::string* TextOf(uint32_t id) const;
  // Whether a special token is written like this.
  bool IsSpecial(absl::string_view content) const { return specials_.contains(content); }
  // Whether the id is that of a special token.
  bool IsSpecial(uint32_t id) const;

  // One more than the largest id; 0 if there are none.
  uint32_t ids_end() const { return ids_end_; }

 private:
  absl::Status Add(AddedToken token, const BpeModel& model);
  absl::Status FillTries(const std::vector<AddedToken>& tokens, const Normalizer& normalizer);

  absl::flat_hash_map<std::string, uint32_t> ids_;
  absl::flat_hash_map<uint32_t, AddedToken> tokens_;  // The last that was given the id.
  absl::flat_hash_map<uint32_t, std::string> texts_;  // For decoders.
  absl::flat_hash_set<std::string> specials_;
  ByteTrie raw_;  // The values are ids.
  ByteTrie normalized_;
  uint32_t ids_end_ = 0;
};

}  // namespace nibble
