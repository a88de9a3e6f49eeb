// What device.h promises, of every device.

#include <functional>
#include <limits>
#include <numeric>
#include <thread>

#include "gmock/gmock.h"
#include "kernels/error_details.h"
#include "tests/kernels/device_fixture.h"

namespace nibble {
namespace {

using testing::HasSubstr;

class DeviceContractTest : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Host, DeviceContractTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, DeviceContractTest, testing::ValuesIn(CudaDevices()),
                         DeviceTestName);

std::vector<std::byte> Counting(int64_t bytes, int seed) {
  std::vector<std::byte> values(static_cast<size_t>(bytes));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<std::byte>((i * 131 + i / 257 + static_cast<size_t>(seed)) & 0xff);
  }
  return values;
}

TEST_P(DeviceContractTest, IsNamedAsOnTheCommandLine) {
  EXPECT_EQ(device_->name(), GetParam());
  EXPECT_FALSE(device_->description().empty());
  EXPECT_EQ(device_->traits().kind, is_host() ? DeviceKind::kHost : DeviceKind::kCuda);
  EXPECT_TRUE(device_->health().ok());
}

TEST_P(DeviceContractTest, AlignsAllocations) {
  EXPECT_EQ(memory_.address() % static_cast<uint64_t>(device_->traits().alignment_bytes), 0u);
  EXPECT_EQ(memory_.bytes(), kMemoryBytes);
}

TEST_P(DeviceContractTest, RefusesAnAllocationBeyondItsMemoryAndGoesOn) {
  const auto memory = device_->QueryMemory();
  ASSERT_TRUE(memory.ok()) << memory.status();
  const int64_t granularity = device_->traits().granularity_bytes;
  const int64_t too_much = RoundUp(memory->total_bytes + 1, granularity);
  const absl::Status status = device_->Allocate(too_much).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.reason, "DEVICE_MEMORY_TAKEN");
  EXPECT_EQ(details.needed_bytes, too_much);
  EXPECT_LE(details.available_bytes.value_or(too_much), memory->total_bytes);
  EXPECT_TRUE(device_->health().ok()) << "a full device is not a broken one";

  const auto next = device_->Allocate(granularity);
  ASSERT_TRUE(next.ok()) << "the refused allocation left an error behind: " << next.status();
  device_->Free(*next);
}

TEST_P(DeviceContractTest, TakesExactlyWhatIsAllocated) {
  const int64_t granularity = device_->traits().granularity_bytes;
  for (const int64_t bytes : {granularity, 3 * granularity, 17 * granularity}) {
    const int64_t before = device_->QueryMemory()->free_bytes;
    const auto span = device_->Allocate(bytes);
    ASSERT_TRUE(span.ok()) << span.status();
    EXPECT_EQ(before - device_->QueryMemory()->free_bytes, bytes);
    device_->Free(*span);
    EXPECT_EQ(device_->QueryMemory()->free_bytes, before);
  }
}

TEST_P(DeviceContractTest, TakesNoMemoryForQueuesEventsOrKernelsOnceWarm) {
  const auto warm_queue = *device_->NewQueue();
  const auto warm_event = *device_->NewEvent();
  const int64_t before = device_->QueryMemory()->free_bytes;
  const auto queue = *device_->NewQueue();
  const auto event = *device_->NewEvent();
  const DeviceSpan source = Cut(64 * 2);
  const DeviceSpan codes = Cut(32);
  const DeviceSpan scales = Cut(4);
  Upload(Counting(128, 1), source);
  for (const Codebook codebook : {Codebook::kNf4, Codebook::kFp4}) {
    QuantizeArgs args = {codebook, 64, FloatType::kBf16, 64, source, codes, scales, {}};
    ASSERT_TRUE(device_->ops().Quantize(*queue, args).ok());
    args.scale_search = ScaleSearch::kSigned;
    ASSERT_TRUE(device_->ops().Quantize(*queue, args).ok());
    const DequantizeArgs back = {codebook, 64, FloatType::kBf16, 64, codes, scales, source};
    ASSERT_TRUE(device_->ops().Dequantize(*queue, back).ok());
  }
  const DeviceSpan offset = Cut(4);
  const MeasureErrorArgs measure = {Codebook::kNf4, 64,     FloatType::kBf16,      64, source,
                                    codes,          scales, Cut(sizeof(ErrorSums))};
  ASSERT_TRUE(device_->ops().MeasureError(*queue, measure).ok());
  const DeviceSpan map = Cut(1024);
  const F8Range range = {F8Type::kE4M3, FloatType::kF32, 0, 32, 32, 1, 32};
  ASSERT_TRUE(device_->ops().ExpandF8(*queue, {range, codes, scales, source}).ok());
  ASSERT_TRUE(device_->ops().MeanScale(*queue, {1, scales, offset}).ok());
  ASSERT_TRUE(
      device_->ops().QuantizeScales(*queue, {1, scales, offset, codes.Slice(0, 1), offset}).ok());
  ASSERT_TRUE(device_->ops()
                  .DequantizeScales(*queue, {1, codes.Slice(0, 1), offset, offset, map, scales})
                  .ok());
  ASSERT_TRUE(queue->Synchronize().ok());
  EXPECT_EQ(device_->QueryMemory()->free_bytes, before);
}

TEST_P(DeviceContractTest, CopiesToOnAndFromTheDevice) {
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{4097}, 8_MiB + 3}) {
    ForgetCuts();
    const std::vector<std::byte> source = Counting(bytes, 7);
    const DeviceSpan first = Cut(bytes, 1);
    const DeviceSpan second = Cut(bytes, 2);
    ASSERT_TRUE(queue_->CopyToDevice(source, first).ok());
    ASSERT_TRUE(queue_->CopyOnDevice(first, second).ok());
    EXPECT_EQ(Download<std::byte>(second), source) << bytes << " bytes";
  }
}

TEST_P(DeviceContractTest, CopiesThroughPageLockedMemoryInTheOrderOfTheCalls) {
  const auto host = device_->AllocateHost(2_MiB);
  ASSERT_TRUE(host.ok()) << host.status();
  const std::vector<std::byte> source = Counting(1_MiB, 3);
  const std::span<std::byte> in = host->first(1_MiB);
  const std::span<std::byte> out = host->last(1_MiB);
  std::memcpy(in.data(), source.data(), source.size());
  const DeviceSpan span = Cut(1_MiB);
  const auto event = *device_->NewEvent();
  ASSERT_TRUE(queue_->CopyToDevice(in, span).ok());
  ASSERT_TRUE(queue_->CopyToHost(span, out).ok());
  ASSERT_TRUE(queue_->Record(*event).ok());
  ASSERT_TRUE(event->Wait().ok());
  EXPECT_EQ(std::memcmp(out.data(), source.data(), source.size()), 0);
  device_->FreeHost(*host);
}

TEST_P(DeviceContractTest, WaitsAtOnceForAnEventNeverRecordedAndAgainForOneReused) {
  const auto event = *device_->NewEvent();
  EXPECT_TRUE(event->Wait().ok());
  EXPECT_TRUE(queue_->Record(*event).ok());
  EXPECT_TRUE(event->Wait().ok());
  EXPECT_TRUE(queue_->Record(*event).ok());
  EXPECT_TRUE(event->Wait().ok());
}

TEST_P(DeviceContractTest, CountsHostMemoryWhileItIsHeld) {
  EXPECT_EQ(device_->host_bytes(), 0);
  const auto first = device_->AllocateHost(1_MiB);
  const auto second = device_->AllocateHost(4_KiB + 1);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first->data()) % 4096, 0u);
  EXPECT_EQ(device_->host_bytes(), 1_MiB + 4_KiB + 1);
  device_->FreeHost(*first);
  EXPECT_EQ(device_->host_bytes(), 4_KiB + 1);
  device_->FreeHost(*second);
  EXPECT_EQ(device_->host_bytes(), 0);
}

TEST_P(DeviceContractTest, ShowsItsMemoryToTheHostOnlyIfItsTraitsSaySo) {
  const std::vector<std::byte> source = Counting(1000, 9);
  const DeviceSpan span = Cut(1000);
  Upload(source, span);
  const std::span<std::byte> view = device_->HostView(span);
  if (!device_->traits().host_visible) {
    EXPECT_TRUE(view.empty());
    return;
  }
  EXPECT_EQ(std::vector(view.begin(), view.end()), source);
  EXPECT_TRUE(queue_->CopyToDevice(view, span).ok()) << "a copy onto itself does nothing";
  EXPECT_EQ(Download<std::byte>(span), source);
}

TEST_P(DeviceContractTest, RefusesWorkWhoseSpansDoNotFitItsShape) {
  const DeviceSpan source = Cut(128);
  const DeviceSpan codes = Cut(32);
  const DeviceSpan scales = Cut(4);
  const QuantizeArgs good = {Codebook::kNf4, 64, FloatType::kBf16, 64, source, codes, scales, {}};
  EXPECT_TRUE(device_->ops().Quantize(*queue_, good).ok());
  for (const auto& spoil : std::vector<std::function<void(QuantizeArgs&)>>{
           [](QuantizeArgs& args) { args.block_size = 48; },
           [](QuantizeArgs& args) { args.block_size = 16; },
           [](QuantizeArgs& args) { args.element_count = 65; },
           [](QuantizeArgs& args) { args.element_count = -1; },
           [](QuantizeArgs& args) { args.codes = args.codes.Slice(0, 31); },
           [](QuantizeArgs& args) { args.scales = {}; },
           [](QuantizeArgs& args) { args.first_non_finite = args.codes.Slice(0, 4); }}) {
    QuantizeArgs bad = good;
    spoil(bad);
    EXPECT_EQ(device_->ops().Quantize(*queue_, bad).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(DeviceContractTest, KeepsQueuesOfSeveralThreadsApart) {
  constexpr int kThreads = 4;
  std::vector<DeviceSpan> spans;
  spans.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    spans.push_back(Cut(1_MiB));
  }
  std::vector<int> equal(kThreads, 0);
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const auto queue = *device_->NewQueue();
      const std::vector<std::byte> source = Counting(1_MiB, i);
      std::vector<std::byte> target(source.size());
      const DeviceSpan span = spans[static_cast<size_t>(i)];
      const bool ok = queue->CopyToDevice(source, span).ok() &&
                      queue->CopyToHost(span, target).ok() && queue->Synchronize().ok();
      equal[static_cast<size_t>(i)] = ok && target == source ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(std::accumulate(equal.begin(), equal.end(), 0), kThreads);
}

TEST(DeviceSpanTest, SlicesWithinItself) {
  const DeviceSpan span(4096, 100);
  EXPECT_EQ(span.Slice(10, 90), DeviceSpan(4106, 90));
  EXPECT_EQ(span.Slice(100, 0), DeviceSpan(4196, 0));
}

TEST(DeviceSpanDeathTest, EndsTheProcessAtASliceOutsideItself) {
  const DeviceSpan span(4096, 100);
  EXPECT_DEATH(span.Slice(10, 91), "slice lies within its span");
  EXPECT_DEATH(span.Slice(-1, 1), "slice lies within its span");
  EXPECT_DEATH(span.Slice(std::numeric_limits<int64_t>::max(), 1), "slice lies within its span");
  EXPECT_DEATH(span.Slice(0, std::numeric_limits<int64_t>::min()), "slice lies within its span");
}

TEST(CudaDeviceTest, SaysWhyAGpuCannotBeOpened) {
  const absl::Status status = OpenCudaDevice(4711).status();
  ASSERT_FALSE(status.ok());
  if (status.code() == absl::StatusCode::kNotFound) {
    EXPECT_THAT(std::string(status.message()), HasSubstr("cuda:4711"));
  } else if (status.code() == absl::StatusCode::kUnimplemented) {
    EXPECT_THAT(std::string(status.message()), HasSubstr("built without CUDA"));
    EXPECT_EQ(CudaVersionText(), "none");
  } else {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("no usable NVIDIA driver"));
  }
}

}  // namespace
}  // namespace nibble
