// The device of N bytes in host memory: the embedded default where there is no GPU, and the same
// contract, so that everything above is tested without one.

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "kernels/block_quantize.h"
#include "kernels/device.h"
#include "kernels/error_details.h"
#include "kernels/host_ops.h"
#include "kernels/host_step_ops.h"
#include "kernels/worker_pool.h"

namespace nibble {
namespace {

// Work is done within the call, so an event has always happened.
class HostEvent final : public Event {
 public:
  absl::Status Wait() override { return absl::OkStatus(); }
};

class HostRecording final : public Recording {
 public:
  explicit HostRecording(std::function<absl::Status()> work) : work_(std::move(work)) {}
  absl::Status Run() const { return work_(); }

 private:
  const std::function<absl::Status()> work_;
};

class HostQueue final : public Queue {
 public:
  absl::Status CopyToDevice(std::span<const std::byte> source, DeviceSpan target) override {
    Check(std::ssize(source) == target.bytes(), "a copy has equal ends");
    return Copy(source.data(), HostPointer(target), source.size());
  }

  absl::Status CopyToHost(DeviceSpan source, std::span<std::byte> target) override {
    Check(std::ssize(target) == source.bytes(), "a copy has equal ends");
    return Copy(HostPointer(source), target.data(), target.size());
  }

  absl::Status CopyOnDevice(DeviceSpan source, DeviceSpan target) override {
    Check(source.bytes() == target.bytes(), "a copy has equal ends");
    return Copy(HostPointer(source), HostPointer(target), static_cast<size_t>(source.bytes()));
  }

  absl::Status Record(Event&) override { return absl::OkStatus(); }
  absl::Status Synchronize() override { return absl::OkStatus(); }

  absl::StatusOr<std::unique_ptr<Recording>> RecordWork(
      std::function<absl::Status()> work) override {
    return std::make_unique<HostRecording>(std::move(work));
  }
  absl::Status Replay(Recording& recording) override {
    return static_cast<HostRecording&>(recording).Run();
  }

 private:
  static absl::Status Copy(const std::byte* source, std::byte* target, size_t bytes) {
    if (source != target && bytes > 0) {
      std::memcpy(target, source, bytes);
    }
    return absl::OkStatus();
  }
};

class HostDevice final : public Device {
 public:
  explicit HostDevice(int64_t total_bytes)
      : total_bytes_(total_bytes), pool_(CoreCount()), step_ops_(pool_) {}
  ~HostDevice() override {
    Check(allocated_bytes_ == 0 && host_bytes_ == 0, "a device outlives its allocations");
  }

  const DeviceTraits& traits() const override { return kHostTraits; }
  std::string name() const override { return "host"; }
  std::string description() const override {
    return absl::StrCat("host memory, ", SimdLevelName());
  }

  absl::StatusOr<Memory> QueryMemory() const override {
    Memory memory;
    memory.total_bytes = total_bytes_;
    memory.free_bytes = total_bytes_ - allocated_bytes_;
    // Resident pages are the second number of statm.
    std::ifstream statm("/proc/self/statm");
    int64_t pages = 0;
    if (statm >> pages >> pages) {
      memory.process_bytes = pages * sysconf(_SC_PAGESIZE);
    }
    return memory;
  }

  absl::StatusOr<DeviceSpan> Allocate(int64_t bytes) override {
    Check(bytes > 0 && bytes % kHostTraits.granularity_bytes == 0, "an allocation is whole pages");
    if (!Take(bytes)) {
      return Taken(bytes, total_bytes_ - allocated_bytes_);
    }
    void* const memory = MapPages(bytes);
    if (memory == MAP_FAILED) {
      allocated_bytes_ -= bytes;
      return Taken(bytes, 0);
    }
    return DeviceSpan(std::bit_cast<uint64_t>(memory), bytes);
  }

  void Free(DeviceSpan allocated) override {
    Check(munmap(HostPointer(allocated), static_cast<size_t>(allocated.bytes())) == 0,
          "what is freed was allocated");
    allocated_bytes_ -= allocated.bytes();
  }

  absl::StatusOr<std::span<std::byte>> AllocateHost(int64_t bytes) override {
    void* const memory = MapPages(bytes);
    if (memory == MAP_FAILED) {
      return absl::ResourceExhaustedError(absl::StrCat("no ", bytes, " bytes of host memory"));
    }
    host_bytes_ += bytes;
    return std::span<std::byte>(static_cast<std::byte*>(memory), static_cast<size_t>(bytes));
  }

  void FreeHost(std::span<std::byte> allocated) override {
    Check(munmap(allocated.data(), allocated.size()) == 0, "what is freed was allocated");
    host_bytes_ -= std::ssize(allocated);
  }

  int64_t host_bytes() const override { return host_bytes_; }

  std::span<std::byte> HostView(DeviceSpan span) const override {
    return {HostPointer(span), static_cast<size_t>(span.bytes())};
  }

  absl::StatusOr<std::unique_ptr<Queue>> NewQueue() override {
    return std::make_unique<HostQueue>();
  }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    return std::make_unique<HostEvent>();
  }
  Ops& ops() override { return ops_; }
  StepOps& step_ops() override { return step_ops_; }
  absl::Status health() const override { return absl::OkStatus(); }

 private:
  // Those that this process may use, which a container may have limited.
  static int CoreCount() {
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
  }

  // Pages come when they are first written, as the kernel gives them; a large page where it can.
  static void* MapPages(int64_t bytes) {
    void* const memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED) {
      madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // A wish; no matter if refused.
    }
    return memory;
  }

  // Check, then add, in one step, so that two allocations cannot both take the last bytes.
  bool Take(int64_t bytes) {
    int64_t allocated = allocated_bytes_;
    do {
      if (bytes > total_bytes_ - allocated) {
        return false;
      }
    } while (!allocated_bytes_.compare_exchange_weak(allocated, allocated + bytes));
    return true;
  }

  static absl::Status Taken(int64_t needed_bytes, int64_t available_bytes) {
    ErrorDetails details;
    details.reason = "DEVICE_MEMORY_TAKEN";
    details.resource = "host";
    details.needed_bytes = needed_bytes;
    details.available_bytes = available_bytes;
    return WithDetails(
        absl::ResourceExhaustedError(absl::StrCat("host: an allocation of ", needed_bytes,
                                                  " bytes failed, ", available_bytes, " are free")),
        details);
  }

  const int64_t total_bytes_;
  std::atomic<int64_t> allocated_bytes_ = 0;
  std::atomic<int64_t> host_bytes_ = 0;
  HostOps ops_;
  WorkerPool pool_;
  HostStepOps step_ops_;
};

}  // namespace

std::unique_ptr<Device> OpenHostDevice(int64_t total_bytes) {
  return std::make_unique<HostDevice>(total_bytes);
}

}  // namespace nibble
