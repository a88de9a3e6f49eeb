#include "loader/scale_scratch.h"

#include <algorithm>

#include "kernels/check.h"

namespace nibble {
namespace {

// As every plane's, so that kernels may read with their widest loads.
constexpr int64_t kAlignmentBytes = 256;

}  // namespace

DeviceSpan ScaleScratch::TryLend(const Tile& tile, int64_t bytes) {
  MutexLock lock(mutex_);
  return Place(tile, bytes);
}

DeviceSpan ScaleScratch::Lend(const Tile& tile, int64_t bytes) {
  MutexLock lock(mutex_);
  while (!stopped_) {
    if (const DeviceSpan room = Place(tile, bytes); !room.empty()) {
      return room;
    }
    changed_.Wait(mutex_);
  }
  return DeviceSpan();
}

bool ScaleScratch::CountDone(const Tile& tile) {
  MutexLock lock(mutex_);
  return --Find(tile)->tiles_left == 0;
}

void ScaleScratch::GiveBack(const Tile& tile) {
  MutexLock lock(mutex_);
  loans_.erase(Find(tile));
  changed_.SignalAll();
}

std::vector<ScaleScratch::Loan>::iterator ScaleScratch::Find(const Tile& tile) {
  const auto loan = std::find_if(loans_.begin(), loans_.end(),
                                 [&tile](const Loan& candidate) { return candidate.IsOf(tile); });
  Check(loan != loans_.end(), "the part was lent its room");
  return loan;
}

void ScaleScratch::Stop() {
  MutexLock lock(mutex_);
  stopped_ = true;
  changed_.SignalAll();
}

DeviceSpan ScaleScratch::Place(const Tile& tile, int64_t bytes) {
  int64_t gap_begin = 0;
  auto after = loans_.end();
  int64_t offset = -1;
  for (auto loan = loans_.begin(); loan != loans_.end(); ++loan) {
    if (loan->IsOf(tile)) {
      return span_.Slice(loan->offset, bytes);
    }
    if (offset < 0 && loan->offset - gap_begin >= bytes) {
      offset = gap_begin;
      after = loan;
    }
    gap_begin = RoundUp(loan->offset + loan->bytes, kAlignmentBytes);
  }
  if (offset < 0 && span_.bytes() - gap_begin >= bytes) {
    offset = gap_begin;
  }
  if (offset < 0) {
    return DeviceSpan();
  }
  loans_.insert(after, {tile.tensor_index, tile.part_index, offset, bytes, tile.tiles_of_plane});
  return span_.Slice(offset, bytes);
}

}  // namespace nibble
