// What of a cache entry's file lies in no plane: headers, side tensors, whole files such as
// config.json.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loader/checkpoint.h"
#include "loader/checkpoint_directory.h"

namespace nibble {

// The digest of the bytes that lie in none of `planes`, in order.
//
// Requires: the planes lie side by side, in order, within `file_bytes`.
// Errors: those of reading.
absl::StatusOr<std::string> DigestRest(const ReadOnlyFile& file, int64_t file_bytes,
                                       const std::vector<FileRange>& planes);

}  // namespace nibble
