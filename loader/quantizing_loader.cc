#include "loader/quantizing_loader.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_details.h"
#include "loader/device_buffer.h"
#include "loader/scale_scratch.h"
#include "loader/staging_ring.h"
#include "loader/tile_list.h"
#include "loader/tile_reader.h"

namespace nibble {
namespace {

absl::Status CheckUnchanged(const Shard& shard, const ReadOnlyFile& file, const char* when) {
  const absl::StatusOr<FileIdentity> found = file.Identify();
  if (!found.ok()) {
    return found.status();
  }
  if (*found == shard.identity) {
    return absl::OkStatus();
  }
  ErrorDetails details;
  details.reason = "CHECKPOINT_CHANGED";
  details.resource = shard.file_name;
  return WithDetails(absl::DataLossError(absl::StrCat(
                         shard.file_name, ": was changed ", when, ": expected ",
                         shard.identity.bytes, " bytes as of ", shard.identity.modified_ns,
                         " ns, found ", found->bytes, " bytes as of ", found->modified_ns, " ns")),
                     details);
}

// The shards that tiles are read from.
std::set<int> ShardsRead(const LoadPlan& plan) {
  std::set<int> shards;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.loaded && tensor.f8_scale.has_value()) {
      shards.insert(tensor.f8_scale->scales.shard_index);
    }
    for (const PlannedPart& part : tensor.parts) {
      for (const Plane plane : kPlanes) {
        if (part[plane].shard_index >= 0) {
          shards.insert(part[plane].shard_index);
        }
      }
    }
  }
  return shards;
}

// Opens every shard of which something is loaded, if it is still the file that was planned.
absl::StatusOr<ShardFiles> OpenShards(const Checkpoint& checkpoint, const LoadPlan& plan) {
  ShardFiles files(checkpoint.shards.size());
  for (const int shard_index : ShardsRead(plan)) {
    const auto index = static_cast<size_t>(shard_index);
    const Shard& shard = checkpoint.shards[index];
    absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file =
        checkpoint.directory->Open(shard.file_name);
    if (!file.ok()) {
      return file.status();
    }
    if (absl::Status status = CheckUnchanged(shard, **file, "since it was planned"); !status.ok()) {
      return status;
    }
    files[index] = *std::move(file);
  }
  return files;
}

absl::Status CheckAllUnchanged(const Checkpoint& checkpoint, const ShardFiles& files) {
  for (size_t index = 0; index < files.size(); ++index) {
    if (files[index] != nullptr) {
      absl::Status status =
          CheckUnchanged(checkpoint.shards[index], *files[index], "while loading");
      if (!status.ok()) {
        return status;
      }
    }
  }
  return absl::OkStatus();
}

// Runs the readers, the first on this thread, so that a load goes on with fewer where the system
// gives no more threads.
void RunReaders(const TileReader::Load& load, int reader_count) {
  const auto run = [&load](int reader_index) {
    try {
      TileReader(load, reader_index).Run();
    } catch (const std::bad_alloc&) {  // Past a thread's function it would end the process.
      load.tiles.Fail(-1, absl::ResourceExhaustedError("a reader found no host memory"));
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(reader_count));
  for (int index = 1; index < reader_count; ++index) {
    try {
      threads.emplace_back(run, index);
    } catch (const std::exception&) {  // No thread, or no memory for one.
      break;
    }
  }
  run(0);
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// Writes the maps of double-quantized scales, and the means that the files say, to their places.
absl::Status WriteScaleConstants(Device& device, const LoadPlan& plan, DeviceSpan slab) {
  std::vector<std::byte> bytes(std::as_bytes(std::span(plan.scale_maps)).begin(),
                               std::as_bytes(std::span(plan.scale_maps)).end());
  for (const PlannedTensor& tensor : plan.tensors) {
    for (const PlannedPart& part : tensor.parts) {
      if (tensor.double_quantized) {
        const size_t offset = static_cast<size_t>(part.scale_mean_offset - plan.scale_maps_offset);
        bytes.resize(std::max(bytes.size(), offset + sizeof(float)));
        std::memcpy(bytes.data() + offset, &part.scale_mean, sizeof(float));
      }
    }
  }
  if (bytes.empty()) {
    return absl::OkStatus();
  }
  const absl::StatusOr<std::unique_ptr<Queue>> queue = device.NewQueue();
  if (!queue.ok()) {
    return queue.status();
  }
  absl::Status status =
      (*queue)->CopyToDevice(bytes, slab.Slice(plan.scale_maps_offset, std::ssize(bytes)));
  status.Update((*queue)->Synchronize());
  return status;
}

StagingShape ShapeOf(const LoadPlan& plan, const LoaderOptions& options) {
  const int core_count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return ShapeStaging(plan.traits, plan.staging_bytes - plan.scale_scratch_bytes,
                      options.reader_count, core_count);
}

// What every source of a load is streamed through and into.
struct Target {
  Device& device;
  const StagingRing& ring;
  DeviceSpan slab;
};

// Streams every tile of the plan into the slab.
absl::Status FillSlab(const Target& target, const LoadSource& source, const ShardFiles& files,
                      LoadObserver& observer) {
  const LoadPlan& plan = *source.plan;
  if (absl::Status status = WriteScaleConstants(target.device, plan, target.slab); !status.ok()) {
    return status;
  }
  const StagingShape& shape = target.ring.shape();
  const TileList tiles(plan, shape.slot_bytes);
  ScaleScratch scratch(target.ring.scratch());
  TileQueue queue(plan, tiles, scratch, observer);
  const TileReader::Load load{target.device,    plan,    *source.checkpoint,
                              source.checksums, files,   target.slab,
                              target.ring,      scratch, queue};
  RunReaders(load, static_cast<int>(std::min<int64_t>(shape.reader_count, tiles.size())));
  if (queue.status().ok() && plan.quantization.error_stats) {
    observer.OnErrors(queue.errors());
  }
  return queue.status();
}

// All that stays, before anything is read: a load that has begun does not end for want of memory.
absl::StatusOr<ResidentMemory> AllocateResident(Device& device,
                                                VramBudget::Reservation& reservation,
                                                const LoadPlan& plan) {
  ResidentMemory memory;
  const auto allocate = [&](Purpose purpose, int64_t bytes, DeviceBuffer& buffer) {
    if (bytes == 0) {
      return absl::OkStatus();
    }
    absl::StatusOr<DeviceBuffer> allocated =
        DeviceBuffer::Allocate(device, reservation, purpose, bytes);
    if (allocated.ok()) {
      buffer = *std::move(allocated);
    }
    return allocated.status();
  };
  absl::Status status = allocate(Purpose::kWeights, plan.weights_bytes, memory.slab);
  if (status.ok()) {
    status = allocate(Purpose::kKvCache, plan.kv_cache_bytes, memory.kv_cache);
  }
  if (status.ok()) {
    status = allocate(Purpose::kWorkspace, plan.workspace_bytes, memory.workspace);
  }
  if (!status.ok()) {
    return status;
  }
  return memory;
}

absl::Status LoadFrom(const Target& target, const LoadSource& source, LoadObserver& observer) {
  const absl::StatusOr<ShardFiles> files = OpenShards(*source.checkpoint, *source.plan);
  if (!files.ok()) {
    return source.checksums == nullptr ? files.status() : AsCacheFailure(files.status());
  }
  absl::Status status = FillSlab(target, source, *files, observer);
  // A file that was changed explains both a load that went well and data that made no sense.
  if (status.ok() || absl::IsDataLoss(status)) {
    if (absl::Status changed = CheckAllUnchanged(*source.checkpoint, *files); !changed.ok()) {
      return source.checksums == nullptr ? changed : AsCacheFailure(changed);
    }
  }
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Weights>> LoadWeights(Device& device,
                                                     std::span<const LoadSource> sources,
                                                     VramBudget::Reservation reservation,
                                                     const LoaderOptions& options,
                                                     LoadObserver& observer) {
  Check(!sources.empty() && sources.back().checksums == nullptr, "the last source is a checkpoint");
  const LoadPlan& plan = *sources.back().plan;
  Check(plan.traits.kind == device.traits().kind, "the plan was made for this kind of device");
  // Buffers point to it, so it must not move any more.
  auto owned = std::make_unique<VramBudget::Reservation>(std::move(reservation));
  absl::StatusOr<ResidentMemory> memory = AllocateResident(device, *owned, plan);
  if (!memory.ok()) {
    return memory.status();
  }
  {
    const absl::StatusOr<StagingRing> ring = StagingRing::Allocate(
        device, *owned, plan.staging_bytes, plan.scale_scratch_bytes, ShapeOf(plan, options));
    if (!ring.ok()) {
      return ring.status();
    }
    const Target target{device, *ring, memory->slab.span()};
    for (const LoadSource& source : sources) {
      absl::Status status = LoadFrom(target, source, observer);
      if (status.ok()) {
        break;
      }
      // Of a source with checksums everything that its files do wrong is DATA_LOSS.
      if (source.checksums == nullptr || !absl::IsDataLoss(status)) {
        return status;
      }
      observer.OnFallback(status);
    }
  }
  owned->Release(Purpose::kStaging);
  return std::make_unique<Weights>(sources.back().plan, std::move(owned), *std::move(memory));
}

}  // namespace nibble
