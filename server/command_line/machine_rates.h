// What this machine could do at best: the rates that `nibble bench` holds our own against.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device.h"

namespace nibble {

// Share of the files' pages that are in the page cache, 0 to 1. (The only place where we map a
// file, and nothing of the mapping is touched: it is how mincore wants to be asked.)
absl::StatusOr<double> ResidentShare(const std::vector<std::string>& paths);

// Reads the files from end to end with `thread_count` threads into a small buffer each, and does
// nothing with them.
absl::StatusOr<absl::Duration> TimeRead(const std::vector<std::string>& paths, int thread_count);

// Copies `bytes` of memory with `thread_count` threads, each its share, between buffers far beyond
// the caches.
absl::StatusOr<absl::Duration> TimeMemoryCopy(int64_t bytes, int thread_count);

// Copies `bytes` from page-locked host memory to the device, in large pieces.
absl::StatusOr<absl::Duration> TimeDeviceCopy(Device& device, int64_t bytes);

}  // namespace nibble
