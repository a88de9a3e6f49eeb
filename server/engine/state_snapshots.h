// Which states of linear attention are kept, so that a prompt that begins like an earlier one can
// go on from there. A page of keys and values serves whatever follows it; a state serves one place.

#pragma once

#include <cstdint>
#include <list>
#include <utility>

namespace nibble {

// Belongs to one thread.
class StateSnapshots {
 public:
  // Slots first_slot to first_slot + count - 1 are for snapshots.
  StateSnapshots(int32_t first_slot, int64_t count);

  // Whether the state behind this text (PagePool::text) is kept.
  bool Has(uint64_t text) const;

  // The slot of that state. Requires: Has(text).
  int32_t Use(uint64_t text);

  // A slot for the state behind this text, in place of the one that was used longest ago. Requires:
  // there are slots; not Has(text).
  int32_t Keep(uint64_t text);

 private:
  struct Snapshot {
    uint64_t text;  // 0: none yet.
    int32_t slot;
  };

  std::list<Snapshot> snapshots_;  // The last used first.
};

}  // namespace nibble
