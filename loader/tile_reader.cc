#include "loader/tile_reader.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/error_details.h"
#include "loader/quantization_policy.h"

namespace nibble {
namespace {

// `status` with the tensor's name before its message; code and details stay.
absl::Status About(const PlannedTensor& tensor, const absl::Status& status) {
  absl::Status named(status.code(), absl::StrCat(tensor.name, ": ", status.message()));
  status.ForEachPayload([&named](absl::string_view type, const absl::Cord& payload) {
    named.SetPayload(type, payload);
  });
  return named;
}

}  // namespace

TileQueue::TileQueue(const LoadPlan& plan, const TileList& tiles, LoadObserver& observer)
    : plan_(plan), tiles_(tiles), observer_(observer), tiles_left_(plan.tensors.size()) {
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
}

void TileQueue::CountDone(const Tile& tile) {
  const auto tensor_index = static_cast<size_t>(tile.tensor_index);
  const int64_t bytes =
      tile.element_count * BytesPerElement(SourceType(plan_.tensors[tensor_index]));
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

void TileReader::Run() {
  if (absl::Status status = Start(); !status.ok()) {
    load_.tiles.Fail(-1, std::move(status));
  } else {
    for (size_t index = 0;; index = (index + 1) % slots_.size()) {
      InFlight& in_flight = slots_[index];
      Finish(in_flight);
      const std::optional<Tile> tile = load_.tiles.Next();
      if (!tile.has_value()) {
        break;
      }
      if (absl::Status begun = Begin(*tile, in_flight); !begun.ok()) {
        load_.tiles.Fail(tile->index, About(tensor(*tile), begun));
      }
    }
  }
  // Also after a failure: what is in flight may hold an earlier error, and still uses the memory.
  for (InFlight& in_flight : slots_) {
    Finish(in_flight);
  }
  if (queue_ != nullptr) {
    if (absl::Status status = queue_->Synchronize(); !status.ok()) {
      load_.tiles.Fail(-1, std::move(status));
    }
  }
}

absl::Status TileReader::Start() {
  absl::StatusOr<std::unique_ptr<Queue>> queue = load_.device.NewQueue();
  if (!queue.ok()) {
    return queue.status();
  }
  queue_ = *std::move(queue);
  for (int index = 0; index < load_.ring.shape().slots_per_reader; ++index) {
    absl::StatusOr<std::unique_ptr<Event>> done = load_.device.NewEvent();
    if (!done.ok()) {
      return done.status();
    }
    slots_.push_back({load_.ring.slot(reader_index_, index), *std::move(done), std::nullopt, {}});
  }
  return absl::OkStatus();
}

absl::Status TileReader::Begin(const Tile& tile, InFlight& in_flight) {
  const PlannedTensor& tensor = this->tensor(tile);
  const PlannedPart& part = this->part(tile);
  const int64_t element_bytes = BytesPerElement(SourceType(tensor));
  const int64_t tile_offset = tile.first_element * element_bytes;
  const int64_t tile_bytes = tile.element_count * element_bytes;
  const bool kept = tensor.format == Format::kAsStored;
  // What is kept goes to its place at once, past the slot: on the host device it is read there.
  const DeviceSpan target = kept ? load_.slab.Slice(part.data_offset + tile_offset, tile_bytes)
                                 : in_flight.slot.device.Slice(0, tile_bytes);
  const std::span<std::byte> host =
      load_.device.traits().host_visible
          ? load_.device.HostView(target)
          : in_flight.slot.host.first(static_cast<size_t>(tile_bytes));

  const ReadOnlyFile& file = *load_.files[static_cast<size_t>(tensor.shard_index)];
  absl::Status status = file.Read(tensor.file_offset + part.source_offset + tile_offset, host);
  if (!status.ok()) {
    return status;
  }
  in_flight.tile = tile;  // From here on work may be queued that uses the slot.
  in_flight.bytes = host;
  status = queue_->CopyToDevice(host, target);
  if (status.ok()) {
    status = kept ? QueueCheck(tile, in_flight, target) : QueueQuantize(tile, in_flight, target);
  }
  if (status.ok() && !load_.plan.quantization.allow_non_finite) {
    status = queue_->CopyToHost(in_flight.slot.device_cell, in_flight.slot.host_cell);
  }
  if (status.ok()) {
    status = queue_->Record(*in_flight.done);
  }
  if (!status.ok()) {
    in_flight.tile.reset();  // Its cell says nothing; Run() waits for the queue.
  }
  return status;
}

absl::Status TileReader::QueueQuantize(const Tile& tile, const InFlight& in_flight,
                                       DeviceSpan source) {
  const PlannedTensor& tensor = this->tensor(tile);
  const PlannedPart& part = this->part(tile);
  const int64_t block_size = load_.plan.quantization.block_size;
  QuantizeArgs args;
  args.codebook = tensor.format == Format::kFp4 ? Codebook::kFp4 : Codebook::kNf4;
  args.block_size = block_size;
  args.source_type = SourceType(tensor);
  args.element_count = tile.element_count;
  args.source = source;
  // Exact divisions: a tile starts on a block, and a block is an even number of elements.
  args.codes =
      load_.slab.Slice(part.data_offset + tile.first_element / 2, CodeBytes(tile.element_count));
  args.scales = load_.slab.Slice(part.scales_offset + ScaleBytes(tile.first_element, block_size),
                                 ScaleBytes(tile.element_count, block_size));
  if (!load_.plan.quantization.allow_non_finite) {
    args.first_non_finite = in_flight.slot.device_cell;
  }
  return load_.device.ops().Quantize(*queue_, args);
}

absl::Status TileReader::QueueCheck(const Tile& tile, const InFlight& in_flight,
                                    DeviceSpan source) {
  if (load_.plan.quantization.allow_non_finite) {
    return absl::OkStatus();
  }
  FindNonFiniteArgs args;
  args.source_type = SourceType(tensor(tile));
  args.element_count = tile.element_count;
  args.source = source;
  args.first_non_finite = in_flight.slot.device_cell;
  return load_.device.ops().FindNonFinite(*queue_, args);
}

void TileReader::Finish(InFlight& in_flight) {
  const std::optional<Tile> tile = std::exchange(in_flight.tile, std::nullopt);
  if (!tile.has_value()) {
    return;
  }
  absl::Status status = in_flight.done->Wait();
  if (status.ok() && !load_.plan.quantization.allow_non_finite) {
    status = CheckFinite(*tile, in_flight);
  }
  if (!status.ok()) {
    load_.tiles.Fail(tile->index, std::move(status));
    return;
  }
  load_.tiles.CountDone(*tile);
}

absl::Status TileReader::CheckFinite(const Tile& tile, const InFlight& in_flight) const {
  uint64_t index = kAllFinite;
  std::memcpy(&index, in_flight.slot.host_cell.data(), sizeof(index));
  if (index == kAllFinite) {
    return absl::OkStatus();
  }
  const PlannedTensor& tensor = this->tensor(tile);
  const FloatType type = SourceType(tensor);
  Check(index < static_cast<uint64_t>(tile.element_count), "the cell points into its tile");
  const float value = LoadElement(type, in_flight.bytes.data(), static_cast<int64_t>(index));
  const int64_t element = part(tile).source_offset / BytesPerElement(type) + tile.first_element +
                          static_cast<int64_t>(index);
  ErrorDetails details;
  details.reason = "NON_FINITE";
  details.resource = tensor.name;
  return WithDetails(absl::DataLossError(absl::StrCat(
                         load_.checkpoint.shards[static_cast<size_t>(tensor.shard_index)].file_name,
                         ": ", tensor.name, ": expected finite values, found ",
                         std::isnan(value) ? "NaN" : (value > 0 ? "Inf" : "-Inf"), " at element ",
                         element, " of [", absl::StrJoin(tensor.shape, ", "),
                         "]; allow_non_finite loads it as bitsandbytes would")),
                     details);
}

}  // namespace nibble
