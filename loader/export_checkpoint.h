// An export from beginning to end: a directory that holds a bitsandbytes checkpoint, or nothing.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/device.h"
#include "loader/checkpoint.h"
#include "loader/checkpoint_writer.h"
#include "loader/new_directory.h"
#include "loader/weights.h"

namespace nibble {

// What an export takes from the checkpoint beside the weights. Kept while they are.
struct CheckpointOrigin {
  std::shared_ptr<const CheckpointDirectory> directory;  // For the tokenizer's files.
  ModelConfig config;
  std::string config_json;
};

// Finds where an export to `path` goes: an absolute path beneath one of `roots`, every symbolic
// link resolved; its parent exists.
//
// Errors: FAILED_PRECONDITION without roots; INVALID_ARGUMENT that names the field "directory" if
//   it is no such path; NOT_FOUND without a parent; PERMISSION_DENIED.
absl::StatusOr<std::unique_ptr<NewDirectory>> ResolveExportDirectory(
    const std::vector<std::string>& roots, absl::string_view path);

// Writes shards, index, config.json and the tokenizer's files of the source into `target`, which is
// not made yet, and keeps it. On failure nothing is left of it. A tokenizer's file that cannot be
// copied is a warning: the source may be gone while its weights are still here.
//
// Errors: ALREADY_EXISTS if `target` is there and not empty; those of MakeExportPlan and
//   WriteCheckpoint.
absl::StatusOr<ExportSummary> ExportCheckpoint(Device& device, const Weights& weights,
                                               const CheckpointOrigin& origin, NewDirectory& target,
                                               ExportObserver& observer);

}  // namespace nibble
