// Finds the longest of many strings at a place in a text.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace nibble {

// Immutable once filled, and then thread-safe.
class ByteTrie {
 public:
  struct Match {
    size_t bytes = 0;
    size_t value = 0;
  };

  ByteTrie();

  // Adds `key` with `value`; of a key that is added twice the first value counts.
  //
  // Requires: `key` is not empty.
  void Add(absl::string_view key, size_t value);

  // The longest key with which text.substr(position) begins; false if there is none.
  //
  // Cost: a step for each byte of the longest key, at most.
  bool FindLongest(absl::string_view text, size_t position, Match& match) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  uint32_t Child(uint32_t node, char byte) const;

  std::array<uint32_t, 256> roots_;                   // Most places in a text fail here.
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // By node and byte.
  std::vector<int64_t> values_;                       // By node; -1: no key ends here.
};

}  // namespace nibble
