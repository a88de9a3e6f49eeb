#include "tests/kernels/device_fixture.h"

namespace nibble {

std::vector<std::string> CudaDevices() { return {}; }

}  // namespace nibble
