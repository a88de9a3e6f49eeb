// Byte-pair encoding: a piece of text, its characters first, merged pair by pair.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/tokenizer/bpe_file.h"
#include "server/engine/tokenizer/bpe_merge.h"

namespace nibble {

// Immutable and thread-safe; each thread brings a BpeScratch of its own.
class BpeModel {
 public:
  // Errors: DATA_LOSS for two tokens with one id, a merge of or into what is no token.
  static absl::StatusOr<BpeModel> Create(BpeFile file);

  std::optional<uint32_t> IdOf(absl::string_view token) const;
  // Null if no token has the id.
  const std::string* TokenOf(uint32_t id) const;

  int64_t token_count() const { return static_cast<int64_t>(ids_.size()); }
  // One more than the largest id.
  uint32_t ids_end() const { return static_cast<uint32_t>(tokens_.size()); }

  // Appends the ids of `piece`. Ids that are set in `reserved` come from no merge and no whole
  // piece.
  //
  // Requires: `piece` is valid UTF-8 and shorter than 4 GiB; `reserved` is as long as ids_end(), or
  //   empty.
  // Errors: DATA_LOSS if a character is unknown, and the unknown token, too.
  // Cost: n log n for n characters.
  absl::Status Encode(absl::string_view piece, const std::vector<bool>& reserved,
                      BpeScratch& scratch, std::vector<uint32_t>& ids) const;

 private:
  BpeModel() = default;

  absl::Status AddMerges(const BpeFile& file);
  void FillShortcuts();
  absl::Status SplitIntoCharacters(absl::string_view piece, BpeScratch& scratch) const;
  std::optional<uint32_t> IdOfCharacter(absl::string_view character) const;
  bool AppendBytes(absl::string_view character, BpeScratch& scratch) const;

  BpeFile options_;                                 // Without its lists.
  std::vector<std::string> tokens_;                 // By id; those without a token are empty.
  std::vector<bool> is_token_;                      // By id.
  absl::flat_hash_map<std::string, uint32_t> ids_;  // By token.
  BpeMerges merges_;
  std::optional<uint32_t> unknown_id_;
  std::vector<int64_t> short_ids_;       // Of characters of one or two bytes; -1: none.
  std::array<int64_t, 256> byte_ids_{};  // Of <0x00> to <0xFF>; -1: none.
};

}  // namespace nibble
