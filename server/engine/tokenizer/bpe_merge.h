// The merge loop of byte-pair encoding, with a heap: linear but for a logarithm, also on a piece of
// a million characters.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace nibble {

struct BpeMerge {
  uint32_t rank = 0;
  uint32_t id = 0;  // Of what the pair becomes.
};

// The pairs that merge, by PairKey.
using BpeMerges = absl::flat_hash_map<uint64_t, BpeMerge>;

constexpr uint64_t PairKey(uint32_t left, uint32_t right) {
  return static_cast<uint64_t>(left) << 32 | right;
}

// The symbols of one piece while it is merged. Reused from piece to piece, so that short pieces
// allocate nothing.
class BpeScratch {
 public:
  void Clear() { symbols_.clear(); }
  void Add(uint32_t id);

  // Merges the pair of lowest rank, among equals the leftmost, until none is left. Nothing becomes
  // an id that is set in `reserved`, which may be empty.
  void Merge(const BpeMerges& merges, const std::vector<bool>& reserved);

  void AppendTo(std::vector<uint32_t>& ids) const;

 private:
  struct Symbol {
    uint32_t id = 0;
    int32_t previous = -1;
    int32_t next = -1;
    bool merged = false;  // Into the one before.
  };
  struct Candidate {
    uint32_t rank = 0;
    int32_t position = 0;  // Of the left symbol.
    uint32_t id = 0;
  };

  static bool ComesLater(const Candidate& left, const Candidate& right);
  const BpeMerge* FindMerge(int32_t left, const BpeMerges& merges,
                            const std::vector<bool>& reserved) const;
  void Push(int32_t left, const BpeMerges& merges, const std::vector<bool>& reserved);

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace nibble
