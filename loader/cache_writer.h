// Writes the weights of a load as an entry of the quantized cache.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "loader/cache_manifest.h"
#include "loader/checkpoint_writer.h"
#include "loader/export_plan.h"
#include "loader/quantized_cache.h"
#include "loader/weights.h"

namespace nibble {

// What is written, and for which load.
struct CacheWrite {
  CacheKey key;
  std::shared_ptr<const LoadPlan> plan;  // Of the weights.
  ModelConfig config;
  std::string config_json;
};

// Writes one entry, in three steps; whatever was written goes again on destruction unless all three
// went well. One thread.
//
// Holds at most 16 MiB of host memory, kExportBufferBytes of it from Device::AllocateHost, and the
// manifest beside: 1/8192 of the entry and some 200 bytes a tensor.
class CacheWriter {
 public:
  // All must outlive it.
  CacheWriter(const QuantizedCache& cache, const CacheLock& lock, const CacheWrite& write)
      : cache_(cache), lock_(lock), write_(write) {}

  // Makes room and a directory.
  //
  // Errors: UNIMPLEMENTED, FAILED_PRECONDITION or DATA_LOSS if these weights cannot be exported
  //   (MakeExportPlan); those of QuantizedCache::MakeRoom and of the system.
  absl::Status Begin();

  // Writes all but the manifest: the only step that needs weights, of which it copies a buffer at a
  // time. `cancelled` is asked before each.
  //
  // Errors: CANCELLED; RESOURCE_EXHAUSTED with reason DISK_FULL; what the system says; INTERNAL if
  //   the device fails.
  absl::Status Copy(Device& device, const Weights& weights, absl::FunctionRef<bool()> cancelled);

  // Writes the manifest and gives the entry its name, when all of it is on the disk. Returns its
  // bytes.
  //
  // Errors: as Copy.
  absl::StatusOr<int64_t> Finish();

  int64_t evicted_count() const { return evicted_count_; }

 private:
  absl::Status AddScaleMeans(Device& device, const Weights& weights,
                             absl::FunctionRef<bool()> cancelled);
  absl::Status DescribeFiles();

  const QuantizedCache& cache_;
  const CacheLock& lock_;
  const CacheWrite& write_;
  int64_t evicted_count_ = 0;
  ExportPlan export_plan_;
  CacheManifest manifest_;
  ExportSummary summary_;
  std::unique_ptr<NewDirectory> target_;
};

}  // namespace nibble
