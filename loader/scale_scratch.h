// Where the fp32 scales of double-quantized parts wait: 8-bit scales need their part's mean, which
// is known only when all of the part has been quantized.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/device.h"
#include "kernels/mutex.h"
#include "loader/tile_list.h"

namespace nibble {

// Lends pieces of one range of device memory. A part is lent its scales' room with its first tile
// and gives it back when all of its tiles are done and its scales are in 8 bits. Thread-safe.
//
// Waiting cannot deadlock: tiles of a part follow one another, and a reader has nothing in flight
// while it waits; so of a part that has its room, every tile is finished or with a reader that does
// not wait.
class ScaleScratch {
 public:
  explicit ScaleScratch(DeviceSpan span) : span_(span) {}

  // Room for `bytes` of scales of the tile's part, lent now if it was not before. Empty if there is
  // none at the moment.
  //
  // Requires: `bytes` is the same for every tile of a part; the range holds two of the largest.
  DeviceSpan TryLend(const Tile& tile, int64_t bytes);

  // Waits for it. Empty after Stop().
  DeviceSpan Lend(const Tile& tile, int64_t bytes);

  // Counts a tile whose work is done. True for the last one of its part.
  bool CountDone(const Tile& tile);

  // Requires: CountDone() was true for the tile, and no work that uses the room is queued any more.
  void GiveBack(const Tile& tile);

  // Ends all waiting, now and later: the load has failed.
  void Stop();

 private:
  struct Loan {
    int32_t tensor_index;
    int32_t part_index;
    int64_t offset;
    int64_t bytes;
    int64_t tiles_left;

    bool IsOf(const Tile& tile) const {
      return tensor_index == tile.tensor_index && part_index == tile.part_index;
    }
  };

  DeviceSpan Place(const Tile& tile, int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Loan>::iterator Find(const Tile& tile) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const DeviceSpan span_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<Loan> loans_ ABSL_GUARDED_BY(mutex_);  // By offset.
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace nibble
