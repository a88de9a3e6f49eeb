// Text to token ids and back, as a checkpoint's tokenizer.json says: what the `tokenizers` library
// makes of the same file.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/tokenizer/added_tokens.h"
#include "server/engine/tokenizer/bpe_model.h"
#include "server/engine/tokenizer/decoder.h"
#include "server/engine/tokenizer/normalizer.h"
#include "server/engine/tokenizer/post_processor.h"
#include "server/engine/tokenizer/pre_tokenizer.h"

namespace nibble {

struct EncodeOptions {
  // Puts the post-processor's tokens around the text (the BOS of Llama). Off for a rendered chat
  // template, which has written them itself.
  bool add_special_tokens = true;

  // Special tokens in the text are tokens. Off for the text of a user, who may write "<|im_end|>":
  // then no special token comes from text that spells it.
  bool parse_special = true;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  // Errors: INVALID_ARGUMENT for text that is not UTF-8, saying where; RESOURCE_EXHAUSTED above
  //   kEncodeTextBytesMax, or when normalizing or cutting it takes more than its limits allow.
  // Cost: time n log n, memory some 64 bytes for each byte of `text`.
  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text,
                                               const EncodeOptions& options) const;

  // The text of `ids`; ids that no token has are left out. Bytes that are not UTF-8 become U+FFFD.
  std::string Decode(std::span<const uint32_t> ids, bool skip_special) const;

  // The token as decoders get it ("Ġhello", "<0x0A>"); nothing if no token has the id.
  std::optional<std::string> TokenText(uint32_t id) const;
  // The bytes that the token adds to a text, not necessarily whole characters: for stop strings and
  // constrained sampling. Without what depends on the place, such as a first space that is dropped.
  std::optional<std::string> TokenBytes(uint32_t id) const;
  std::optional<uint32_t> IdOf(absl::string_view token) const;
  // Whether it is marked as special: a control token, no text.
  bool IsSpecial(uint32_t id) const;

  // One more than the largest id. Some ids below may have no token, and a model's output may be
  // wider.
  uint32_t vocabulary_size() const;

 private:
  friend class Detokenizer;
  friend absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizer(absl::string_view file_name,
                                                                   absl::string_view json);
  struct EncodeState;

  Tokenizer(BpeModel model, AddedTokens added, Normalizer normalizer, PreTokenizer pre_tokenizer,
            PostProcessor post_processor, Decoder decoder);

  absl::Status EncodeRaw(absl::string_view text, bool begins_input, EncodeState& state) const;
  absl::Status EncodeNormalized(std::string text, bool begins_input, EncodeState& state) const;
  const std::string* FindText(uint32_t id) const;

  const BpeModel model_;
  const AddedTokens added_;
  const Normalizer normalizer_;
  const PreTokenizer pre_tokenizer_;
  const PostProcessor post_processor_;
  const Decoder decoder_;
  std::vector<bool> special_ids_;  // Of the model's vocabulary.
};

// Reads tokenizer.json. Truncation and padding are left out: the server decides on lengths.
//
// Errors: UNIMPLEMENTED for a kind of component that is not supported, named; DATA_LOSS for
// malformed
//   JSON, a member that stands twice, and what is inconsistent; INVALID_ARGUMENT for a regular
//   expression that is none; RESOURCE_EXHAUSTED above the limits of tokenizer_limits.h. All name
//   `file_name`.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizer(absl::string_view file_name,
                                                          absl::string_view json);

// Decodes token by token. What it gives, joined, is what Decode gives for all ids together; it
// keeps back what further tokens may change: half a character, a run of byte tokens, an end that a
// decoder may strip.
//
// One thread at a time. Must not outlive its tokenizer.
class Detokenizer {
 public:
  // Tokens in `shown` have text even where special ones are skipped.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special, std::vector<uint32_t> shown = {});

  // Returns: the text that is final now and was not before; whole characters, often none.
  std::string Append(uint32_t id);
  // Returns: the rest. Nothing may be appended after it.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  const std::vector<uint32_t> shown_;
  DecoderStream stream_;
};

}  // namespace nibble
