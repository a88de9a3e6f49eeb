// Directories within a checkpoint's. Apart from CheckpointDirectory, which is flat for all that
// reads weights.

#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loader/checkpoint_directory.h"

namespace nibble {

// Opens the directory `directory_name` within `directory`, under the same rules.
//
// Errors: NOT_FOUND if it is not there, also in a directory that OpenCheckpointDirectory has not
//   opened; PERMISSION_DENIED; INVALID_ARGUMENT if it is no plain name, no directory, or leads out
//   of the model root.
absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> OpenNestedDirectory(
    const CheckpointDirectory& directory, absl::string_view directory_name);

}  // namespace nibble
