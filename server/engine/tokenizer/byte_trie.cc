#include "server/engine/tokenizer/byte_trie.h"

namespace nibble {
namespace {

uint64_t Edge(uint32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
}

}  // namespace

ByteTrie::ByteTrie() { roots_.fill(kNone); }

void ByteTrie::Add(absl::string_view key, size_t value) {
  const auto add_node = [this] {
    values_.push_back(-1);
    return static_cast<uint32_t>(values_.size() - 1);
  };
  uint32_t& root = roots_[static_cast<unsigned char>(key[0])];
  if (root == kNone) {
    root = add_node();
  }
  uint32_t node = root;
  for (const char byte : key.substr(1)) {
    const auto [child, added] = children_.try_emplace(Edge(node, byte), 0);
    if (added) {
      child->second = add_node();
    }
    node = child->second;
  }
  if (values_[node] < 0) {
    values_[node] = static_cast<int64_t>(value);
  }
}

uint32_t ByteTrie::Child(uint32_t node, char byte) const {
  const auto child = children_.find(Edge(node, byte));
  return child == children_.end() ? kNone : child->second;
}

bool ByteTrie::FindLongest(absl::string_view text, size_t position, Match& match) const {
  bool found = false;
  uint32_t node = roots_[static_cast<unsigned char>(text[position])];
  for (size_t end = position + 1; node != kNone; ++end) {
    if (values_[node] >= 0) {
      match = {.bytes = end - position, .value = static_cast<size_t>(values_[node])};
      found = true;
    }
    node = end < text.size() ? Child(node, text[end]) : kNone;
  }
  return found;
}

}  // namespace nibble
