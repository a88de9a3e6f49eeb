// Carries out a LoadPlan: streams a checkpoint through a fixed ring of staging slots and leaves
// 4-bit weights on the device. loader/README.md tells the life of a load.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/error_sums.h"
#include "loader/checkpoint.h"
#include "loader/load_plan.h"
#include "loader/tile_checksums.h"
#include "loader/vram_budget.h"
#include "loader/weights.h"

namespace nibble {

struct LoadProgress {
  int64_t read_bytes = 0;  // Of the plan's source_bytes.
  int64_t source_bytes = 0;
  int64_t tensors_done = 0;
  int64_t tensors_total = 0;
};

// What quantizing has lost, for each tensor of a plan; empty for those that were not measured.
using TensorErrors = std::vector<std::optional<ErrorSums>>;

// Follows a load. Called by the loader's own threads, without locks held; must return at once.
class LoadObserver {
 public:
  virtual ~LoadObserver() = default;

  // After each tile, on any reader's thread, so calls may overlap and arrive out of order; the
  // fields only grow.
  virtual void OnProgress(const LoadProgress& progress) = 0;

  // With error_stats: called once, when all is loaded, by the thread that called LoadWeights().
  virtual void OnErrors(TensorErrors&& /*errors*/) {}

  // Asked before each tile. Once true, stays true.
  virtual bool cancelled() const = 0;

  // A source is given up and the next one is begun: progress starts anew. On the thread of
  // LoadWeights, while no reader runs.
  virtual void OnFallback(const absl::Status& /*why*/) {}
};

// Files that a load can be made from.
struct LoadSource {
  const Checkpoint* checkpoint = nullptr;  // Directory and shards.
  std::shared_ptr<const LoadPlan> plan;
  const TileChecksums* checksums = nullptr;  // What is read must be; null: nobody knows.
};

struct LoaderOptions {
  // Threads that read and quantize; 0: as many as suit the device and this machine.
  int reader_count = 0;
};

// Allocates all of the plan's peak under `reservation`, loads, and gives the staging back. On
// failure everything allocated is freed; the reservation itself ends with the last owner.
//
// Sources are tried in order, within the same allocations: one with checksums whose files are not
// what they should be (missing, short, changed, another checksum) gives way to the next. The last
// one is the checkpoint; the weights keep its plan.
//
// Requires: there is a source, and the last has no checksums; each plan was made for its checkpoint
//   and this device's traits; all have one slab and one peak, and `reservation` covers it.
// Errors: DATA_LOSS if a file is truncated or was changed since it was planned, or a source element
//   is NaN or Inf (unless allowed), naming file, tensor and index; CANCELLED; RESOURCE_EXHAUSTED
//   with reason DEVICE_MEMORY_TAKEN; INTERNAL if the device fails.
absl::StatusOr<std::unique_ptr<Weights>> LoadWeights(Device& device,
                                                     std::span<const LoadSource> sources,
                                                     VramBudget::Reservation reservation,
                                                     const LoaderOptions& options,
                                                     LoadObserver& observer);

}  // namespace nibble
