// The member "model" of tokenizer.json: a vocabulary and the merges of byte-pair encoding.

#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// As it stands in the file; BpeModel makes sense of it.
struct BpeFile {
  std::vector<std::pair<std::string, uint32_t>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  // By rank, the first is merged first.
  std::string unknown_token;  // Empty: characters that are not in the vocabulary are left out.
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  bool fuse_unknown = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

// Reads the model; merges in the old form ("a b") and the new one (["a", "b"]).
//
// Errors: UNIMPLEMENTED for another type (Unigram, WordPiece, WordLevel), named, and for dropout;
//   DATA_LOSS for malformed JSON, a member that stands twice or is of the wrong kind, and ids at or
//   above kTokenIdsMax; RESOURCE_EXHAUSTED above kMergesMax.
absl::StatusOr<BpeFile> ParseBpeFile(absl::string_view json);

}  // namespace nibble
