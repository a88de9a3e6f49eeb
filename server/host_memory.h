// Host memory that runs out in the middle of a load or a plan ends that, not the daemon. How much a
// load takes is decided by a checkpoint's headers, which anybody may have written; anywhere else
// allocations are small and bounded, and one that fails ends the process.

#pragma once

#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nibble {

// What `work` returns, an absl::Status or StatusOr.
//
// Errors: RESOURCE_EXHAUSTED that names `what`, in words that can be printed, if the host has no
// memory.
template <typename Work>
auto WithinHostMemory(absl::string_view what, const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {  // Thrown where nothing is caught, so all of it is undone.
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": the host has no memory for its headers and its plan"));
  }
}

}  // namespace nibble
