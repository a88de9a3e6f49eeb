// A GPU through the CUDA runtime, which is linked statically: the binary starts on a machine
// without a driver and says so when a GPU is asked for.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda_context.h"
#include "kernels/cuda_ops.h"
#include "kernels/cuda_queue.h"
#include "kernels/cuda_step_ops.h"
#include "kernels/device.h"
#include "kernels/error_details.h"
#include "kernels/nvml.h"

namespace nibble {
namespace {

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int ordinal) : context_(ordinal), ops_(context_), step_ops_(context_) {}
  ~CudaDevice() override {
    Check(allocated_bytes_ == 0 && host_bytes_ == 0, "a device outlives its allocations");
  }

  // Makes the context, loads all kernels, sets up queues; no other method may be called before.
  absl::Status Open(int queue_count);

  const DeviceTraits& traits() const override { return kCudaTraits; }
  std::string name() const override { return context_.name(); }
  std::string description() const override { return description_; }
  absl::StatusOr<Memory> QueryMemory() const override;
  absl::StatusOr<DeviceSpan> Allocate(int64_t bytes) override;
  void Free(DeviceSpan allocated) override;
  absl::StatusOr<std::span<std::byte>> AllocateHost(int64_t bytes) override;
  void FreeHost(std::span<std::byte> allocated) override;
  int64_t host_bytes() const override { return host_bytes_; }
  std::span<std::byte> HostView(DeviceSpan) const override { return {}; }
  absl::StatusOr<std::unique_ptr<Queue>> NewQueue() override { return CudaQueue::Create(context_); }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override { return CudaEvent::Create(context_); }
  Ops& ops() override { return ops_; }
  StepOps& step_ops() override { return step_ops_; }
  absl::Status health() const override { return context_.health(); }

 private:
  absl::Status WarmUp(int queue_count);
  absl::Status WarmUp(Queue& queue, DeviceSpan memory);
  absl::Status Taken(int64_t needed_bytes) const;

  mutable CudaContext context_;
  CudaOps ops_;
  CudaStepOps step_ops_;
  std::string description_;
  std::string pci_bus_id_;
  std::atomic<int64_t> allocated_bytes_ = 0;
  std::atomic<int64_t> host_bytes_ = 0;
};

absl::Status CudaDevice::Open(int queue_count) {
  cudaDeviceProp properties;
  absl::Status status = context_.Check(cudaGetDeviceProperties(&properties, context_.ordinal()),
                                       "cudaGetDeviceProperties");
  if (!status.ok()) {
    return status;
  }
  description_ = properties.name;
  std::array<char, 32> bus_id = {};
  status = context_.Check(
      cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), context_.ordinal()),
      "cudaDeviceGetPCIBusId");
  pci_bus_id_ = bus_id.data();
  status.Update(context_.MakeCurrent());
  status.Update(ops_.LoadKernels());
  if (status.ok()) {
    status = step_ops_.LoadKernels();
  }
  if (!status.ok()) {
    return status;
  }
  return WarmUp(queue_count);
}

// Does on zeros what most loads do: copies, quantizing by the largest magnitude, dequantizing, the
// check for NaN. What the driver sets up at first use (its own copy and fill kernels, and channels
// for as many queues as loads use at once) is then part of the runtime reservation, not of the
// first load. The driver keeps the channels when the queues are gone (seen on an H200: the first
// load with 8 queues took 4 MiB more than later ones). Left out are the kernels of scale search,
// 8-bit floats, error statistics and double-quantized scales; what the driver may set up for those
// is not measured.
absl::Status CudaDevice::WarmUp(int queue_count) {
  const absl::StatusOr<DeviceSpan> memory = Allocate(kCudaTraits.granularity_bytes);
  if (!memory.ok()) {
    return memory.status();
  }
  absl::Status status;
  std::vector<std::unique_ptr<Queue>> queues;
  for (int count = 0; status.ok() && count < queue_count; ++count) {
    absl::StatusOr<std::unique_ptr<Queue>> queue = NewQueue();
    status = queue.ok() ? WarmUp(**queue, *memory) : queue.status();
    if (queue.ok()) {
      queues.push_back(*std::move(queue));
    }
  }
  queues.clear();
  Free(*memory);
  return status;
}

absl::Status CudaDevice::WarmUp(Queue& queue, DeviceSpan memory) {
  constexpr int64_t kElements = kBlockSizeDefault;
  constexpr FloatType kType = FloatType::kBf16;
  const DeviceSpan elements = memory.Slice(0, kElements * 2);
  const DeviceSpan codes = memory.Slice(4_KiB, CodeBytes(kElements));
  const DeviceSpan scales = memory.Slice(8_KiB, ScaleBytes(kElements, kElements));
  const DeviceSpan cell = memory.Slice(12_KiB, sizeof(uint64_t));
  std::array<std::byte, kElements* 2> zeros = {};
  const absl::StatusOr<std::unique_ptr<Event>> event = NewEvent();
  absl::Status status = event.status();
  status.Update(queue.CopyToDevice(zeros, elements));
  status.Update(queue.CopyOnDevice(elements, memory.Slice(16_KiB, elements.bytes())));
  status.Update(ops_.Quantize(
      queue, {Codebook::kNf4, kElements, kType, kElements, elements, codes, scales, cell}));
  status.Update(ops_.Dequantize(
      queue, {Codebook::kNf4, kElements, kType, kElements, codes, scales, elements}));
  status.Update(ops_.FindNonFinite(queue, {kType, kElements, elements, cell}));
  status.Update(queue.CopyToHost(elements, zeros));
  if (event.ok()) {
    status.Update(queue.Record(**event));
    status.Update((*event)->Wait());
  }
  status.Update(queue.Synchronize());
  return status;
}

absl::StatusOr<Device::Memory> CudaDevice::QueryMemory() const {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  absl::Status status = context_.MakeCurrent();
  status.Update(context_.Check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
  if (!status.ok()) {
    return status;
  }
  Memory memory;
  memory.total_bytes = static_cast<int64_t>(total_bytes);
  memory.free_bytes = static_cast<int64_t>(free_bytes);
  memory.process_bytes = NvmlProcessBytes(pci_bus_id_);
  // In a container another process may bear our number; ours holds at least what it allocated.
  if (memory.process_bytes.has_value() && *memory.process_bytes < allocated_bytes_) {
    memory.process_bytes.reset();
  }
  return memory;
}

absl::StatusOr<DeviceSpan> CudaDevice::Allocate(int64_t bytes) {
  nibble::Check(bytes > 0 && bytes % kCudaTraits.granularity_bytes == 0,
                "an allocation is a multiple of the granularity");
  if (absl::Status status = context_.MakeCurrent(); !status.ok()) {
    return status;
  }
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    context_.Check(error, "cudaMalloc").IgnoreError();  // Clears it.
    return Taken(bytes);
  }
  if (absl::Status status = context_.Check(error, "cudaMalloc"); !status.ok()) {
    return status;
  }
  allocated_bytes_ += bytes;
  return DeviceSpan(std::bit_cast<uint64_t>(memory), bytes);
}

absl::Status CudaDevice::Taken(int64_t needed_bytes) const {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (!context_.Check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo").ok()) {
    free_bytes = 0;
  }
  ErrorDetails details;
  details.reason = "DEVICE_MEMORY_TAKEN";
  details.resource = name();
  details.needed_bytes = needed_bytes;
  details.available_bytes = static_cast<int64_t>(free_bytes);
  return WithDetails(
      absl::ResourceExhaustedError(absl::StrCat(name(), ": an allocation of ", needed_bytes,
                                                " bytes failed, ", free_bytes, " are free")),
      details);
}

void CudaDevice::Free(DeviceSpan allocated) {
  context_.MakeCurrent().IgnoreError();  // A broken context is remembered, and gives nothing back.
  const cudaError_t error = cudaFree(std::bit_cast<void*>(allocated.address()));
  nibble::Check(error != cudaErrorInvalidValue, "what is freed was allocated");
  context_.Check(error, "cudaFree").IgnoreError();
  allocated_bytes_ -= allocated.bytes();
}

absl::StatusOr<std::span<std::byte>> CudaDevice::AllocateHost(int64_t bytes) {
  void* memory = nullptr;
  absl::Status status = context_.MakeCurrent();
  if (status.ok()) {
    status = context_.Check(
        cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocPortable), "cudaHostAlloc");
  }
  if (absl::IsResourceExhausted(status)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no ", bytes, " bytes of host memory that can be page-locked"));
  }
  if (!status.ok()) {
    return status;
  }
  host_bytes_ += bytes;
  return std::span<std::byte>(static_cast<std::byte*>(memory), static_cast<size_t>(bytes));
}

void CudaDevice::FreeHost(std::span<std::byte> allocated) {
  context_.MakeCurrent().IgnoreError();
  const cudaError_t error = cudaFreeHost(allocated.data());
  nibble::Check(error != cudaErrorInvalidValue, "what is freed was allocated");
  context_.Check(error, "cudaFreeHost").IgnoreError();
  host_bytes_ -= std::ssize(allocated);
}

// With its default, lazy loading, CUDA would take device memory for a kernel when it first runs,
// which no plan has seen. Read by the runtime when it starts, so it must be set before its first
// call; an operator's own choice stands, and LoadKernels() touches every kernel in any case.
void LoadModulesEagerly() { setenv("CUDA_MODULE_LOADING", "EAGER", 0); }

// Errors: UNAVAILABLE without a driver.
absl::StatusOr<int> CountDevices() {
  LoadModulesEagerly();
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice) {
    cudaGetLastError();
    return 0;
  }
  if (error != cudaSuccess) {
    cudaGetLastError();
    return absl::UnavailableError(absl::StrCat(
        "no usable NVIDIA driver: ", cudaGetErrorName(error), ", ", cudaGetErrorString(error),
        "; nvidia-smi tells more, --device host needs none"));
  }
  return count;
}

std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int ordinal, int queue_count) {
  const absl::StatusOr<int> count = CountDevices();
  if (!count.ok()) {
    return count.status();
  }
  if (ordinal < 0 || ordinal >= *count) {
    return absl::NotFoundError(
        absl::StrCat("cuda:", ordinal, ": no such GPU; the driver shows ", *count));
  }
  auto device = std::make_unique<CudaDevice>(ordinal);
  if (absl::Status status = device->Open(queue_count); !status.ok()) {
    return status;
  }
  return device;
}

std::vector<std::string> ListCudaDevices() {
  std::vector<std::string> devices;
  const int count = CountDevices().value_or(0);
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, ordinal) == cudaSuccess) {
      devices.push_back(absl::StrCat("cuda:", ordinal, " ", properties.name));
    }
  }
  return devices;
}

std::string CudaVersionText() {
  LoadModulesEagerly();
  int runtime = 0;
  int driver = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);  // 0 without a driver.
  return absl::StrCat(
      VersionText(runtime),
      driver == 0 ? " (no driver)" : absl::StrCat(" (driver ", VersionText(driver), ")"));
}

}  // namespace nibble
