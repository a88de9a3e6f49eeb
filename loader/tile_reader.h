// One thread of a load: reads tiles into its own slots, queues their quantization, and checks each
// one when its work is done.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "loader/checkpoint_directory.h"
#include "loader/load_plan.h"
#include "loader/scale_scratch.h"
#include "loader/staging_ring.h"
#include "loader/tile_checksums.h"
#include "loader/tile_list.h"
#include "loader/tile_queue.h"

namespace nibble {

// What is open during a load; one file for each shard, null where nothing of it is loaded.
using ShardFiles = std::vector<std::unique_ptr<ReadOnlyFile>>;

// Belongs to one thread, from construction to destruction.
class TileReader {
 public:
  struct Load {  // All must outlive the reader.
    Device& device;
    const LoadPlan& plan;
    const Checkpoint& checkpoint;
    const TileChecksums* checksums;  // Of what is read, if they are known.
    const ShardFiles& files;
    DeviceSpan slab;
    const StagingRing& ring;
    ScaleScratch& scratch;
    TileQueue& tiles;
  };

  TileReader(const Load& load, int reader_index) : load_(load), reader_index_(reader_index) {}

  // Works until there are no more tiles. When it returns, nothing of it is queued any more.
  void Run();

 private:
  struct InFlight {
    StagingRing::Slot slot;
    std::unique_ptr<Event> done;
    std::optional<Tile> tile;          // What is in the slot, if anything.
    std::span<const std::byte> bytes;  // As they were read.
  };

  absl::Status Start();

  // Room for the fp32 scales of a tile that is double-quantized. False if the load has failed.
  bool FindRoom(const Tile& tile);

  absl::Status Begin(const Tile& tile, InFlight& in_flight);
  absl::Status ReadF8(const Tile& tile, InFlight& in_flight);
  absl::Status Read(const Tile& tile, std::span<std::byte> target) const;
  absl::Status QueueWork(const Tile& tile, const InFlight& in_flight, DeviceSpan target);
  absl::Status QueueQuantize(const Tile& tile, const InFlight& in_flight, DeviceSpan source);
  absl::Status QueueCheck(const Tile& tile, const InFlight& in_flight, DeviceSpan target);
  absl::Status QueueMeasure(const InFlight& in_flight, const QuantizeArgs& quantized);
  void Finish(InFlight& in_flight);
  void ReadErrors(const Tile& tile, const InFlight& in_flight);
  void FinishAll();
  absl::Status CheckFinite(const Tile& tile, const InFlight& in_flight) const;

  // Brings the scales of a part that is complete from the scratch to 8 bits in the slab.
  absl::Status SealPart(const Tile& tile);

  const ReadOnlyFile& file(int shard_index) const {
    return *load_.files[static_cast<size_t>(shard_index)];
  }
  const PlannedTensor& tensor(const Tile& tile) const {
    return load_.plan.tensors[static_cast<size_t>(tile.tensor_index)];
  }
  const PlannedPart& part(const Tile& tile) const {
    return tensor(tile).parts[static_cast<size_t>(tile.part_index)];
  }

  const Load load_;
  const int reader_index_;
  std::unique_ptr<Queue> queue_;
  std::unique_ptr<Event> sealed_;
  DeviceSpan room_;  // Of the scales of the tile that is being begun.
  std::vector<InFlight> slots_;
};

}  // namespace nibble
