// What the readers of one load share: which tile is next, what is done, and what went wrong.

#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "kernels/error_sums.h"
#include "kernels/mutex.h"
#include "loader/load_plan.h"
#include "loader/quantizing_loader.h"
#include "loader/scale_scratch.h"
#include "loader/tile_list.h"

namespace nibble {

// The tiles still to do, the progress, and the error that ends the load. Thread-safe.
class TileQueue {
 public:
  // All must outlive the queue.
  TileQueue(const LoadPlan& plan, const TileList& tiles, ScaleScratch& scratch,
            LoadObserver& observer);

  // The next tile in the order of the files; none at the end, after a failure, or once cancelled.
  std::optional<Tile> Next();

  // Ends the load. Of several errors the one of the lowest tile is kept. Since tiles are handed out
  // in order and each is carried to its end, that makes the error the first in the files, whatever
  // the threads did. `tile_index` is -1 for what belongs to no tile.
  void Fail(int64_t tile_index, absl::Status status);

  // Notes what quantizing a tile lost: its chunks' sums, in order.
  void AddErrors(const Tile& tile, std::span<const ErrorSums> chunks);

  // What each tensor lost that was quantized here; added in the order of tiles, whatever the order
  // in which they were done. Requires: no reader is running; the plan has error_stats.
  TensorErrors errors() const;

  // Counts a finished tile and tells the observer.
  void CountDone(const Tile& tile);

  // The error, or OK. Requires: no reader is running.
  absl::Status status() const;

 private:
  const LoadPlan& plan_;
  const TileList& tiles_;
  ScaleScratch& scratch_;  // Nobody waits for room once the load has failed.
  LoadObserver& observer_;
  int64_t tensors_total_ = 0;

  std::atomic<int64_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::atomic<int64_t> read_bytes_ = 0;
  std::atomic<int64_t> tensors_done_ = 0;
  std::vector<std::atomic<int64_t>> tiles_left_;  // Of each tensor.
  std::vector<ErrorSums> tile_errors_;            // Of each tile, by its one reader; or empty.

  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t failed_tile_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace nibble
