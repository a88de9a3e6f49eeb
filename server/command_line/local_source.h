// Checkpoints on this machine, as commands without a daemon open them.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/device.h"
#include "loader/checkpoint.h"
#include "server/command_line/setting.h"

namespace nibble {

// The absolute path if `source` is a path that exists here, `source` itself otherwise: a daemon
// does not know the directory that a client stands in.
std::string AbsoluteIfLocal(const std::string& source);

// Opens `source`, a path or `hf:org/name[@revision]` in the Hugging Face cache of this user.
// Nothing confines the path: whoever runs a command may read what they may read.
absl::StatusOr<Checkpoint> OpenLocalCheckpoint(const std::string& source);

// The traits of "host", "cuda" or "cuda:N".
//
// Errors: INVALID_ARGUMENT.
absl::StatusOr<DeviceTraits> TraitsOf(absl::string_view device);

// --device, checked. `target` holds the default and must outlive the setting.
Setting DeviceSetting(std::string help, std::string* target);

}  // namespace nibble
