// All device tests in one program that needs no source tree, for a machine with a GPU. The golden
// data is found by $NIBBLE_TEST_DATA. Exits 77, "skipped", where there is no GPU.

#include <cstdio>

#include "gtest/gtest.h"
#include "tests/kernels/device_fixture.h"

namespace nibble {

// One GPU is enough: a daemon drives one.
std::vector<std::string> CudaDevices() {
  return ListCudaDevices().empty() ? std::vector<std::string>{}
                                   : std::vector<std::string>{"cuda:0"};
}

}  // namespace nibble

int main(int argc, char** argv) {
  constexpr int kSkipped = 77;
  testing::InitGoogleTest(&argc, argv);
  const auto device = nibble::OpenCudaDevice(0);
  if (!device.ok()) {
    std::fprintf(stderr, "gpu_tests: no GPU to test: %s\n", device.status().ToString().c_str());
    return kSkipped;
  }
  std::printf("gpu_tests: %s, CUDA %s\n", (*device)->description().c_str(),
              nibble::CudaVersionText().c_str());
  return RUN_ALL_TESTS();
}
