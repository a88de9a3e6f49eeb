// A device whose n-th call fails: with it a test can let every single call of a load fail in turn.
//
//   for (int64_t n = 1;; ++n) {
//     faulty.FailCall(n);
//     const absl::Status status = DoTheWork(faulty);
//     if (!faulty.has_failed()) break;  // The work makes fewer than n calls.
//     EXPECT_FALSE(status.ok());
//     ... everything is given back ...
//   }

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/device.h"
#include "kernels/mutex.h"
#include "kernels/ops.h"

namespace nibble {

// Passes every call on to another device, but for the one chosen by FailCall(), which does nothing
// and returns an error: RESOURCE_EXHAUSTED with reason DEVICE_MEMORY_TAKEN from Allocate,
// RESOURCE_EXHAUSTED from AllocateHost, INTERNAL from the rest. (Synchronize waits all the same:
// what was queued must be over when its queue ends.) What gives back (Free, FreeHost, the
// destructors) never fails and is not counted.
//
// Thread-safe as a device is. The device it wraps must outlive it.
class FaultyDevice final : public Device {
 public:
  explicit FaultyDevice(Device& device);
  ~FaultyDevice() override;

  // Counts from 0 again and lets the `call_number`-th call from now fail (1 is the next one); 0:
  // none.
  void FailCall(int64_t call_number);

  // Calls that can fail since the last FailCall().
  int64_t calls() const { return calls_; }

  // Whether the chosen call has been made, and which it was ("Allocate").
  bool has_failed() const { return !failed_call().empty(); }
  std::string failed_call() const;

  // Queues and events that are alive, for tests that nothing is left behind.
  int64_t live_objects() const { return live_objects_; }

  const DeviceTraits& traits() const override { return device_.traits(); }
  std::string name() const override { return device_.name(); }
  std::string description() const override { return device_.description(); }
  absl::StatusOr<Memory> QueryMemory() const override;
  absl::StatusOr<DeviceSpan> Allocate(int64_t bytes) override;
  void Free(DeviceSpan allocated) override { device_.Free(allocated); }
  absl::StatusOr<std::span<std::byte>> AllocateHost(int64_t bytes) override;
  void FreeHost(std::span<std::byte> allocated) override { device_.FreeHost(allocated); }
  int64_t host_bytes() const override { return device_.host_bytes(); }
  std::span<std::byte> HostView(DeviceSpan span) const override { return device_.HostView(span); }
  absl::StatusOr<std::unique_ptr<Queue>> NewQueue() override;
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override;
  Ops& ops() override;
  StepOps& step_ops() override { return device_.step_ops(); }
  absl::Status health() const override { return device_.health(); }

 private:
  friend class FaultyEvent;
  friend class FaultyQueue;
  friend class FaultyOps;

  // Counts a call. Errors: INTERNAL if it is the one that fails.
  absl::Status Enter(const char* call) const;

  Device& device_;
  std::unique_ptr<Ops> ops_;
  mutable std::atomic<int64_t> calls_ = 0;
  std::atomic<int64_t> failing_call_ = 0;
  std::atomic<int64_t> live_objects_ = 0;
  mutable Mutex mutex_;
  mutable std::string failed_call_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
