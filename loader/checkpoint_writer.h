// Writes weights that are in device memory as a bitsandbytes checkpoint, through a buffer of a
// fixed size, in bitsandbytes' order whatever their layout on the device.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/device.h"
#include "loader/export_plan.h"
#include "loader/exported_tensor.h"
#include "loader/new_directory.h"
#include "loader/weights.h"

namespace nibble {

// The buffer: large enough that the disk, not the call, decides the speed. With the header of one
// shard (ShardLimits) a writer stays below 16 MiB of host memory.
inline constexpr int64_t kExportBufferBytes = 4_MiB;

// What checksums are made of: pieces of a tensor's bytes, counted from its first.
inline constexpr int64_t kExportPieceBytes = 64_KiB;

struct ExportedPiece {
  const ExportedTensor* tensor = nullptr;  // What it is a piece of.
  absl::string_view file_name;
  absl::string_view tensor_name;     // "model.norm.weight", "...q_proj.weight.absmax".
  int64_t file_offset = 0;           // Of its first byte.
  int64_t tensor_offset = 0;         // A multiple of kExportPieceBytes.
  std::span<const std::byte> bytes;  // As many, but for a tensor's last piece.
};

// Follows an export, on the thread that writes; must return at once.
class ExportObserver {
 public:
  virtual ~ExportObserver() = default;

  // After each buffer: how many of the plan's plane_bytes are written. Only grows.
  virtual void OnProgress(int64_t written_bytes, int64_t plane_bytes) = 0;

  // Asked before each buffer and each tensor. Once true, stays true.
  virtual bool cancelled() const = 0;

  // Each piece of tensor data, in the order of the files, before it is written. Headers are none.
  virtual void OnPiece(const ExportedPiece&) {}
};

struct ExportSummary {
  std::vector<std::string> files;  // Names, in the order of writing.
  int64_t bytes = 0;               // Of all of them.
  std::vector<std::string> warnings;
};

// Writes config.json, the shards and, if there are several, the index into `target`, and adds them
// to `summary`. Ends nothing: whoever made the directory adds what else belongs there and keeps it.
//
// Requires: `plan` was made from the plan of `weights`; `target` is made.
// Errors: CANCELLED; RESOURCE_EXHAUSTED with reason DISK_FULL, naming file and bytes; what errno
//   says; INTERNAL if the device fails.
// Cost: kExportBufferBytes of Device::AllocateHost and one queue while it runs.
absl::Status WriteCheckpoint(Device& device, const Weights& weights, const ModelConfig& config,
                             const ExportPlan& plan, NewDirectory& target, ExportObserver& observer,
                             ExportSummary& summary);

}  // namespace nibble
