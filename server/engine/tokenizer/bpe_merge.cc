#include "server/engine/tokenizer/bpe_merge.h"

#include <algorithm>

namespace nibble {

void BpeScratch::Add(uint32_t id) {
  const auto position = static_cast<int32_t>(symbols_.size());
  if (position > 0) {
    symbols_.back().next = position;
  }
  symbols_.push_back({.id = id, .previous = position - 1});
}

bool BpeScratch::ComesLater(const Candidate& left, const Candidate& right) {
  return left.rank != right.rank ? left.rank > right.rank : left.position > right.position;
}

const BpeMerge* BpeScratch::FindMerge(int32_t left, const BpeMerges& merges,
                                      const std::vector<bool>& reserved) const {
  const Symbol& symbol = symbols_[static_cast<size_t>(left)];
  if (symbol.next < 0) {
    return nullptr;
  }
  const auto merge = merges.find(PairKey(symbol.id, symbols_[static_cast<size_t>(symbol.next)].id));
  if (merge == merges.end() || (!reserved.empty() && reserved[merge->second.id])) {
    return nullptr;
  }
  return &merge->second;
}

void BpeScratch::Push(int32_t left, const BpeMerges& merges, const std::vector<bool>& reserved) {
  const BpeMerge* const merge = FindMerge(left, merges, reserved);
  if (merge != nullptr) {
    heap_.push_back({.rank = merge->rank, .position = left, .id = merge->id});
    std::push_heap(heap_.begin(), heap_.end(), ComesLater);
  }
}

void BpeScratch::Merge(const BpeMerges& merges, const std::vector<bool>& reserved) {
  heap_.clear();
  for (size_t i = 0; i + 1 < symbols_.size(); ++i) {
    const BpeMerge* const merge = FindMerge(static_cast<int32_t>(i), merges, reserved);
    if (merge != nullptr) {
      heap_.push_back({.rank = merge->rank, .position = static_cast<int32_t>(i), .id = merge->id});
    }
  }
  std::make_heap(heap_.begin(), heap_.end(), ComesLater);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), ComesLater);
    const Candidate top = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<size_t>(top.position)];
    if (left.merged) {
      continue;
    }
    // The neighbours may have changed since the pair was found. It still counts if they become the
    // same token (the library's rule).
    const BpeMerge* const merge = FindMerge(top.position, merges, reserved);
    if (merge == nullptr || merge->id != top.id) {
      continue;
    }
    Symbol& right = symbols_[static_cast<size_t>(left.next)];
    right.merged = true;
    left.id = top.id;
    left.next = right.next;
    if (left.next >= 0) {
      symbols_[static_cast<size_t>(left.next)].previous = top.position;
    }
    if (left.previous >= 0) {
      Push(left.previous, merges, reserved);
    }
    Push(top.position, merges, reserved);
  }
}

void BpeScratch::AppendTo(std::vector<uint32_t>& ids) const {
  for (const Symbol& symbol : symbols_) {
    if (!symbol.merged) {
      ids.push_back(symbol.id);
    }
  }
}

}  // namespace nibble
