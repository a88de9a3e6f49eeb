#include "loader/tile_queue.h"

#include <algorithm>
#include <utility>

namespace nibble {

TileQueue::TileQueue(const LoadPlan& plan, const TileList& tiles, ScaleScratch& scratch,
                     LoadObserver& observer)
    : plan_(plan),
      tiles_(tiles),
      scratch_(scratch),
      observer_(observer),
      tiles_left_(plan.tensors.size()),
      tile_errors_(plan.quantization.error_stats ? static_cast<size_t>(tiles.size()) : 0) {
  for (size_t index = 0; index < plan.tensors.size(); ++index) {
    const int64_t count = tiles.tensor_tiles(static_cast<int64_t>(index));
    tiles_left_[index] = count;
    tensors_total_ += plan.tensors[index].loaded ? 1 : 0;
    // A tensor without elements has nothing to wait for.
    tensors_done_ += plan.tensors[index].loaded && count == 0 ? 1 : 0;
  }
}

std::optional<Tile> TileQueue::Next() {
  if (failed_) {
    return std::nullopt;
  }
  if (observer_.cancelled()) {
    Fail(tiles_.size(), absl::CancelledError("the load was cancelled"));
    return std::nullopt;
  }
  const int64_t index = next_++;
  return index < tiles_.size() ? std::optional(tiles_.tile(index)) : std::nullopt;
}

void TileQueue::Fail(int64_t tile_index, absl::Status status) {
  MutexLock lock(mutex_);
  if (status_.ok() || tile_index < failed_tile_) {
    status_ = std::move(status);
    failed_tile_ = tile_index;
  }
  failed_ = true;
  scratch_.Stop();
}

void TileQueue::AddErrors(const Tile& tile, std::span<const ErrorSums> chunks) {
  for (const ErrorSums& chunk : chunks) {
    tile_errors_[static_cast<size_t>(tile.index)] += chunk;
  }
}

TensorErrors TileQueue::errors() const {
  TensorErrors errors(plan_.tensors.size());
  auto next = tile_errors_.begin();  // Tensors' tiles follow one another.
  for (size_t index = 0; index < plan_.tensors.size(); ++index) {
    const auto first = next;
    next += tiles_.tensor_tiles(static_cast<int64_t>(index));
    const PlannedTensor& tensor = plan_.tensors[index];
    if (first != next && tensor.quantized() && !IsCopied(tensor)) {
      ErrorSums& sums = errors[index].emplace();
      std::for_each(first, next, [&sums](const ErrorSums& tile) { sums += tile; });
    }
  }
  return errors;
}

void TileQueue::CountDone(const Tile& tile) {
  const auto tensor_index = static_cast<size_t>(tile.tensor_index);
  const int64_t bytes = tile.count * FileUnitBytes(plan_.tensors[tensor_index], tile.plane);
  LoadProgress progress;
  progress.read_bytes = read_bytes_ += bytes;
  progress.source_bytes = plan_.source_bytes;
  progress.tensors_done = --tiles_left_[tensor_index] == 0 ? ++tensors_done_ : tensors_done_.load();
  progress.tensors_total = tensors_total_;
  observer_.OnProgress(progress);
}

absl::Status TileQueue::status() const {
  MutexLock lock(mutex_);
  return status_;
}

}  // namespace nibble
