#include "server/engine/state_snapshots.h"

#include <algorithm>

#include "kernels/check.h"

namespace nibble {

StateSnapshots::StateSnapshots(int32_t first_slot, int64_t count) {
  for (int64_t index = 0; index < count; ++index) {
    snapshots_.push_back({0, first_slot + static_cast<int32_t>(index)});
  }
}

bool StateSnapshots::Has(uint64_t text) const {
  return std::any_of(snapshots_.begin(), snapshots_.end(),
                     [text](const Snapshot& snapshot) { return snapshot.text == text; });
}

int32_t StateSnapshots::Use(uint64_t text) {
  const auto used =
      std::find_if(snapshots_.begin(), snapshots_.end(),
                   [text](const Snapshot& snapshot) { return snapshot.text == text; });
  Check(used != snapshots_.end(), "a state that is used was kept");
  snapshots_.splice(snapshots_.begin(), snapshots_, used);
  return snapshots_.front().slot;
}

int32_t StateSnapshots::Keep(uint64_t text) {
  Check(!snapshots_.empty(), "there are slots for snapshots");
  snapshots_.splice(snapshots_.begin(), snapshots_, std::prev(snapshots_.end()));
  snapshots_.front().text = text;
  return snapshots_.front().slot;
}

}  // namespace nibble
