#include "server/engine/grammar/token_vocabulary.h"

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

size_t CommonPrefix(absl::string_view a, absl::string_view b) {
  const size_t most = std::min(a.size(), b.size());
  size_t length = 0;
  while (length < most && a[length] == b[length]) {
    ++length;
  }
  return length;
}

}  // namespace

TokenVocabulary::TokenVocabulary(std::vector<std::string> token_bytes, std::vector<int32_t> end_ids)
    : token_bytes_(std::move(token_bytes)), end_ids_(std::move(end_ids)) {
  for (int32_t id = 0; id < size(); ++id) {
    if (!bytes(id).empty() && bytes(id).size() <= kTokenBytesMax && !IsEnd(id)) {
      sorted_ids_.push_back(id);
    }
  }
  std::sort(sorted_ids_.begin(), sorted_ids_.end(), [this](int32_t a, int32_t b) {
    // As strings, so that bytes count as unsigned.
    const int order = bytes(a).compare(bytes(b));
    return order != 0 ? order < 0 : a < b;
  });
  std::vector<size_t> path;  // The nodes above the next one.
  absl::string_view previous;
  for (size_t i = 0; i < sorted_ids_.size(); ++i) {
    const absl::string_view token = bytes(sorted_ids_[i]);
    const size_t kept = i == 0 ? 0 : CommonPrefix(previous, token);
    while (path.size() > kept) {
      nodes_[path.back()].subtree_end = static_cast<int32_t>(nodes_.size());
      path.pop_back();
    }
    while (path.size() < token.size()) {
      const auto byte = static_cast<uint8_t>(token[path.size()]);
      path.push_back(nodes_.size());
      nodes_.push_back({.subtree_end = 0,
                        .tokens_begin = static_cast<int32_t>(i),
                        .depth = static_cast<uint16_t>(path.size()),
                        .byte = byte});
    }
    previous = token;
  }
  const auto end = static_cast<int32_t>(nodes_.size());
  for (const size_t node : path) {
    nodes_[node].subtree_end = end;
  }
  nodes_.push_back({.subtree_end = end,
                    .tokens_begin = static_cast<int32_t>(sorted_ids_.size()),
                    .depth = 0,
                    .byte = 0});
}

bool TokenVocabulary::IsEnd(int32_t id) const {
  return std::find(end_ids_.begin(), end_ids_.end(), id) != end_ids_.end();
}

}  // namespace nibble
