// One body for every device: suites derive from DeviceTest and are instantiated twice, Host always
// and Cuda with CudaDevices().

#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace nibble {

// The GPUs to test, by name: those present in gpu_tests, none in the other executables, which must
// pass on any machine.
std::vector<std::string> CudaDevices();

inline constexpr int64_t kTestDeviceBytes = 256_MiB;

inline std::unique_ptr<Device> OpenTestDevice(const std::string& name) {
  if (name == "host") {
    return OpenHostDevice(kTestDeviceBytes);
  }
  auto device = OpenCudaDevice(std::stoi(name.substr(name.find(':') + 1)));
  EXPECT_TRUE(device.ok()) << device.status();
  return device.ok() ? *std::move(device) : nullptr;
}

// A device with one queue and one allocation, from which tests cut what they need.
class DeviceTest : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int64_t kMemoryBytes = 128_MiB;
  static constexpr int64_t kGuardBytes = 64;
  static constexpr std::byte kGuard{0xa5};

  void SetUp() override {
    device_ = OpenTestDevice(GetParam());
    ASSERT_NE(device_, nullptr);
    queue_ = *device_->NewQueue();
    const auto memory = device_->Allocate(kMemoryBytes);
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *memory;
  }

  void TearDown() override {
    queue_.reset();
    if (device_ != nullptr && !memory_.empty()) {
      device_->Free(memory_);
    }
  }

  bool is_host() const { return GetParam() == "host"; }

  // Cuts `bytes` out of the allocation, `skew` bytes beyond a multiple of 256.
  DeviceSpan Cut(int64_t bytes, int64_t skew = 0) {
    const int64_t offset = RoundUp(used_bytes_, 256) + skew;
    used_bytes_ = offset + bytes;
    return memory_.Slice(offset, bytes);
  }
  void ForgetCuts() { used_bytes_ = 0; }

  // A range of device memory between two guards.
  DeviceSpan CutGuarded(int64_t bytes, int64_t skew_bytes) {
    const DeviceSpan all = Cut(bytes + 2 * kGuardBytes, skew_bytes);
    Upload(std::vector<std::byte>(static_cast<size_t>(all.bytes()), kGuard), all);
    guarded_.push_back(all);
    return all.Slice(kGuardBytes, bytes);
  }

  void ExpectGuardsIntact() {
    for (const DeviceSpan all : guarded_) {
      for (const int64_t offset : {int64_t{0}, all.bytes() - kGuardBytes}) {
        for (const std::byte value : Download<std::byte>(all.Slice(offset, kGuardBytes))) {
          ASSERT_EQ(value, kGuard) << "something was written outside its plane";
        }
      }
    }
    guarded_.clear();
  }

  void Upload(std::span<const std::byte> source, DeviceSpan target) {
    ASSERT_TRUE(queue_->CopyToDevice(source, target).ok());
    ASSERT_TRUE(queue_->Synchronize().ok());
  }

  template <typename T>
  std::vector<T> Download(DeviceSpan source) {
    std::vector<T> values(static_cast<size_t>(source.bytes()) / sizeof(T));
    EXPECT_TRUE(queue_->CopyToHost(source, std::as_writable_bytes(std::span(values))).ok());
    const absl::Status status = queue_->Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    return values;
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Queue> queue_;
  DeviceSpan memory_;
  int64_t used_bytes_ = 0;

 private:
  std::vector<DeviceSpan> guarded_;
};

// Where two vectors first differ in a bit; -1 if nowhere. (Printing them whole would hide the
// place.)
template <typename T>
int64_t FirstDifference(const std::vector<T>& found, const std::vector<T>& expected) {
  const size_t count = std::min(found.size(), expected.size());
  const auto found_bytes = std::as_bytes(std::span(found).first(count));
  const auto expected_bytes = std::as_bytes(std::span(expected).first(count));
  const auto place =
      std::mismatch(found_bytes.begin(), found_bytes.end(), expected_bytes.begin()).first;
  if (place != found_bytes.end() || found.size() != expected.size()) {
    return (place - found_bytes.begin()) / static_cast<int64_t>(sizeof(T));
  }
  return -1;
}

// How a test names its instance: "Host/DeviceContractTest.CopiesRoundTrip/host".
inline std::string DeviceTestName(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::erase(name, ':');
  return name;
}

}  // namespace nibble
