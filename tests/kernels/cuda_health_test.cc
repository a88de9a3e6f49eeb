// What a GPU says once its context is broken. Linked into gpu_tests alone.

#include <unistd.h>

#include "tests/kernels/device_fixture.h"

namespace nibble {
namespace {

// Quantizes from an address that nobody allocated, and checks what the device says then. Never
// returns.
void BreakTheContext() {
  auto device = *OpenCudaDevice(0);
  auto queue = *device->NewQueue();
  const DeviceSpan memory = *device->Allocate(2_MiB);
  const QuantizeArgs args = {
      Codebook::kNf4,       64, FloatType::kBf16, 64, DeviceSpan(1 << 20, 128), memory.Slice(0, 32),
      memory.Slice(256, 4), {}};
  const bool queued = device->ops().Quantize(*queue, args).ok();
  const bool failed = queue->Synchronize().code() == absl::StatusCode::kInternal;
  const bool broken = device->health().code() == absl::StatusCode::kInternal;
  const bool refused = !device->Allocate(2_MiB).ok();
  _exit(queued && failed && broken && refused ? 0 : 1);
}

TEST(CudaHealthDeathTest, RemembersTheErrorThatBrokeTheContext) {
  if (CudaDevices().empty()) {
    GTEST_SKIP() << "no GPU";
  }
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // A child of fork() has no CUDA.
  EXPECT_EXIT(BreakTheContext(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace nibble
