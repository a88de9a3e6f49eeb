// One GPU as this process uses it: makes it current, turns CUDA's errors into statuses, and
// remembers the one that broke it.

#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "kernels/mutex.h"

namespace nibble {

// Thread-safe. Must outlive whatever refers to it.
class CudaContext {
 public:
  explicit CudaContext(int ordinal);

  const std::string& name() const { return name_; }  // "cuda:0"
  int ordinal() const { return ordinal_; }

  // Makes this GPU the calling thread's current one; every call of the runtime needs that first.
  absl::Status MakeCurrent();

  // Turns the result of `call` into a status and clears CUDA's own memory of it, so that the next
  // call does not report it again. Errors after which the context is of no use are remembered.
  //
  // Errors: RESOURCE_EXHAUSTED if memory is short; INTERNAL.
  absl::Status Check(cudaError_t error, const char* call);

  // OK, or the first error that broke the context.
  absl::Status health() const;

 private:
  const int ordinal_;
  const std::string name_;
  mutable Mutex mutex_;
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
