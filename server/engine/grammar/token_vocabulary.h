// The bytes of a model's tokens, sorted so that all of them can be tried at once.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

// A trie of tokens, laid out in the order in which it is walked: a node's children follow it, and
// `subtree_end` is where to go on without them. Immutable; one for each model, shared.
class TokenVocabulary {
 public:
  struct Node {
    int32_t subtree_end;   // The next node that is not below this one.
    int32_t tokens_begin;  // Of sorted_ids(); up to the next node's are those that end here.
    uint16_t depth;        // Bytes up to here; 1 for the first.
    uint8_t byte;
  };

  // Longer tokens are never chosen: they would only make the walk's path long.
  static constexpr size_t kTokenBytesMax = 1024;

  // `token_bytes` has each token's bytes by its id, empty for tokens that may never be chosen; ids
  // in `end_ids` may be chosen where a value is complete.
  //
  // Requires: `end_ids` is not empty; its ids are ids.
  TokenVocabulary(std::vector<std::string> token_bytes, std::vector<int32_t> end_ids);

  int64_t size() const { return std::ssize(token_bytes_); }
  absl::string_view bytes(int32_t id) const { return token_bytes_[static_cast<size_t>(id)]; }
  std::span<const int32_t> end_ids() const { return end_ids_; }
  bool IsEnd(int32_t id) const;

  // The nodes, and one behind the last that ends the last one's tokens.
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int32_t> sorted_ids() const { return sorted_ids_; }

 private:
  std::vector<std::string> token_bytes_;
  std::vector<int32_t> end_ids_;
  std::vector<int32_t> sorted_ids_;
  std::vector<Node> nodes_;
};

}  // namespace nibble
