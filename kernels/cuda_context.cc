#include "kernels/cuda_context.h"

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// After these the CUDA documentation asks to end the process: every later call returns an error.
bool BreaksContext(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorExternalDevice:
    case cudaErrorMpsClientTerminated:
    case cudaErrorDevicesUnavailable:
    case cudaErrorCudartUnloading:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

CudaContext::CudaContext(int ordinal) : ordinal_(ordinal), name_(absl::StrCat("cuda:", ordinal)) {}

absl::Status CudaContext::MakeCurrent() { return Check(cudaSetDevice(ordinal_), "cudaSetDevice"); }

absl::Status CudaContext::Check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) [[likely]] {
    return absl::OkStatus();
  }
  cudaGetLastError();
  const std::string message = absl::StrCat(name_, ": ", call, ": ", cudaGetErrorName(error), ", ",
                                           cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) {
    return absl::ResourceExhaustedError(message);
  }
  absl::Status status = absl::InternalError(message);
  if (BreaksContext(error)) {
    MutexLock lock(mutex_);
    health_.Update(status);  // Keeps the first: what follows is its consequence.
  }
  return status;
}

absl::Status CudaContext::health() const {
  MutexLock lock(mutex_);
  return health_;
}

}  // namespace nibble
