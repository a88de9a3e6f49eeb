// The seam to the hardware: memory, queues and copies. The numeric operations stand in ops.h
// and step_ops.h. Everything above this folder sees a GPU only through these three pages.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/bytes.h"
#include "kernels/check.h"

namespace nibble {

class Ops;
class StepOps;

enum class DeviceKind { kHost, kCuda };

// In which order a 4-bit tensor's codes and scales lie in device memory. kPlain is bitsandbytes'
// order; kPacked is the order the device's matrix kernels like. Both take the same bytes.
enum class WeightLayout { kPlain, kPacked };

// What a kind of device asks of a plan: constants, so that plans can be made without a device.
struct DeviceTraits {
  DeviceKind kind;
  int64_t alignment_bytes;    // Of each tensor within the slab.
  int64_t granularity_bytes;  // Each allocation takes a multiple of this, exactly.
  bool host_visible;          // Device memory can be read and written by the host (HostView).
  int64_t recorded_operation_bytes;  // Of the driver's memory, for each operation of a Recording.
};

inline constexpr DeviceTraits kHostTraits = {DeviceKind::kHost, 256, 4_KiB, true, 0};
// cudaMalloc is exact for sizes that are multiples of 2 MiB, and a node of a graph takes about 3.5
// KiB (H200, driver 580).
inline constexpr DeviceTraits kCudaTraits = {DeviceKind::kCuda, 256, 2_MiB, false, 3584};

// A range of device memory. It can be sliced and passed on, but host code cannot dereference it, so
// that mixing up host and device memory does not compile.
class DeviceSpan {
 public:
  constexpr DeviceSpan() = default;
  constexpr DeviceSpan(uint64_t address, int64_t bytes) : address_(address), bytes_(bytes) {}

  constexpr uint64_t address() const { return address_; }
  constexpr int64_t bytes() const { return bytes_; }
  constexpr bool empty() const { return bytes_ == 0; }

  // Requires: the slice lies within the span; checked in every build.
  DeviceSpan Slice(int64_t offset_bytes, int64_t bytes) const {
    Check(offset_bytes >= 0 && bytes >= 0 && bytes <= bytes_ && offset_bytes <= bytes_ - bytes,
          "slice lies within its span");
    return DeviceSpan(address_ + static_cast<uint64_t>(offset_bytes), bytes);
  }

  friend bool operator==(const DeviceSpan&, const DeviceSpan&) = default;

 private:
  uint64_t address_ = 0;
  int64_t bytes_ = 0;
};

// A point in a queue's work that the host can wait for. Reusable; belongs to the queue's thread.
class Event {
 public:
  virtual ~Event() = default;

  // Waits until the work before the last Queue::Record of this event is done; at once if never
  // recorded.
  //
  // Errors: INTERNAL if that work failed.
  virtual absl::Status Wait() = 0;
};

// Work that a queue has recorded. Belongs to the queue's thread and must not outlive the queue.
class Recording {
 public:
  virtual ~Recording() = default;
};

// An ordered queue of work. Calls return at once and the work runs in the order of the calls; what
// they point to must stay valid until the work is done. They report errors of queueing; errors of
// the work itself appear in Synchronize() and Event::Wait(). On the host device the work is done
// within the call.
//
// Belongs to one thread. Must not outlive its device.
class Queue {
 public:
  virtual ~Queue() = default;

  // Requires: source.size() == target.bytes(); for overlap with other work, `source` lies in memory
  // from Device::AllocateHost. Copying onto itself (a HostView of `target`) does nothing.
  virtual absl::Status CopyToDevice(std::span<const std::byte> source, DeviceSpan target) = 0;

  // Requires: target.size() == source.bytes().
  virtual absl::Status CopyToHost(DeviceSpan source, std::span<std::byte> target) = 0;

  // Requires: source.bytes() == target.bytes(), no overlap.
  virtual absl::Status CopyOnDevice(DeviceSpan source, DeviceSpan target) = 0;

  virtual absl::Status Record(Event& event) = 0;

  // Records what `work` queues on this queue, instead of running it: operations and copies on the
  // device. Nothing in it may reach the host or wait. On CUDA a replay is one launch of a graph,
  // whose memory (about 3.5 KiB an operation) is taken here; on the host `work` is called again.
  //
  // Errors: those of `work`; INTERNAL if the device cannot record it.
  virtual absl::StatusOr<std::unique_ptr<Recording>> RecordWork(
      std::function<absl::Status()> work) = 0;

  // Queues what was recorded. Requires: by this queue.
  virtual absl::Status Replay(Recording& recording) = 0;

  // Waits for everything queued so far.
  virtual absl::Status Synchronize() = 0;
};

// A device. Thread-safe. Must outlive its queues, events and allocations.
class Device {
 public:
  struct Memory {
    int64_t total_bytes = 0;
    int64_t free_bytes = 0;
    std::optional<int64_t> process_bytes;  // Absent where the device cannot tell.
  };

  virtual ~Device() = default;

  virtual const DeviceTraits& traits() const = 0;

  // As in --device: "host", "cuda:0".
  virtual std::string name() const = 0;

  // For people, e.g. "NVIDIA H200".
  virtual std::string description() const = 0;

  virtual absl::StatusOr<Memory> QueryMemory() const = 0;

  // Returns memory aligned to traits().alignment_bytes, contents undefined. For DeviceBuffer alone,
  // which holds the reservation that covers it.
  //
  // Requires: bytes > 0 and a multiple of traits().granularity_bytes.
  // Errors: RESOURCE_EXHAUSTED with reason DEVICE_MEMORY_TAKEN if the device has none left.
  virtual absl::StatusOr<DeviceSpan> Allocate(int64_t bytes) = 0;
  virtual void Free(DeviceSpan allocated) = 0;

  // Host memory that copies can use while the caller goes on (page-locked on CUDA), page aligned.
  // Counted in host_bytes().
  //
  // Errors: RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<std::span<std::byte>> AllocateHost(int64_t bytes) = 0;
  virtual void FreeHost(std::span<std::byte> allocated) = 0;

  // Bytes from AllocateHost that are held at the moment.
  virtual int64_t host_bytes() const = 0;

  // The host's view of device memory. Empty unless traits().host_visible.
  virtual std::span<std::byte> HostView(DeviceSpan span) const = 0;

  virtual absl::StatusOr<std::unique_ptr<Queue>> NewQueue() = 0;
  virtual absl::StatusOr<std::unique_ptr<Event>> NewEvent() = 0;
  virtual Ops& ops() = 0;
  virtual StepOps& step_ops() = 0;

  // OK, or the error that broke the device for good (a sticky CUDA error): nothing will run on it
  // any more in this process.
  virtual absl::Status health() const = 0;
};

// A device of `total_bytes` in host memory: allocation beyond it fails as on a GPU of that size.
// Its kernels are the fast ones of this processor.
std::unique_ptr<Device> OpenHostDevice(int64_t total_bytes);

// Two loads of 8 readers each, the defaults of --max-loads and of the loader.
inline constexpr int kCudaQueueCountDefault = 16;

// Opens GPU `ordinal`, loads all kernels, and sets up what the driver keeps for `queue_count`
// queues that exist at once, so that no later call takes device memory for modules or queues.
//
// Requires: queue_count > 0.
// Errors: NOT_FOUND if there is no such GPU; UNAVAILABLE without a driver; UNIMPLEMENTED if this
//   binary was built without CUDA or has no kernels for this GPU.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int ordinal,
                                                       int queue_count = kCudaQueueCountDefault);

// The GPUs that OpenCudaDevice can open, described; empty without a driver or without CUDA.
std::vector<std::string> ListCudaDevices();

// The CUDA that this binary was built with and the newest one that the driver supports, for
// build_info: "13.0 (driver 13.1)", "13.0 (no driver)", or "none" in a build without CUDA.
std::string CudaVersionText();

}  // namespace nibble
