// What device.h says about GPUs in a build without CUDA.

#include "kernels/device.h"

namespace nibble {

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int, int) {
  return absl::UnimplementedError("built without CUDA; use --device host");
}

std::vector<std::string> ListCudaDevices() { return {}; }

std::string CudaVersionText() { return "none"; }

}  // namespace nibble
