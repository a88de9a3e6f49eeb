// A device whose quantizer waits at a gate, so that a test decides how far a load gets.

#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "kernels/device.h"
#include "kernels/mutex.h"
#include "kernels/ops.h"

namespace nibble {

// Open at first. Thread-safe.
class Gate {
 public:
  // Lets nobody through.
  void Close() { SetPermits(0); }
  void Open() { SetPermits(std::numeric_limits<int64_t>::max()); }

  // Lets `count` more through.
  void Admit(int64_t count) {
    MutexLock lock(mutex_);
    permits_ += count;
    changed_.SignalAll();
  }

  void Pass() {
    MutexLock lock(mutex_);
    ++waiting_count_;
    changed_.SignalAll();
    while (permits_ == 0) {
      changed_.Wait(mutex_);
    }
    --waiting_count_;
    --permits_;
  }

  // Until `count` threads at once wait before a closed gate.
  void AwaitWaiting(int64_t count) {
    MutexLock lock(mutex_);
    while (permits_ != 0 || waiting_count_ < count) {
      changed_.Wait(mutex_);
    }
  }

 private:
  void SetPermits(int64_t permits) {
    MutexLock lock(mutex_);
    permits_ = permits;
    changed_.SignalAll();
  }

  Mutex mutex_;
  CondVar changed_;
  int64_t permits_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int64_t>::max();
  int64_t waiting_count_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Passes every call on to another device; Quantize() only through the gate.
class GatedDevice final : public Device {
 public:
  explicit GatedDevice(Device& device) : device_(device), ops_(device.ops(), gate_) {}

  Gate& gate() { return gate_; }

  // What health() says from now on, and QueryMemory() too.
  void Break(absl::Status health) {
    MutexLock lock(mutex_);
    health_ = std::move(health);
  }

  const DeviceTraits& traits() const override { return device_.traits(); }
  std::string name() const override { return device_.name(); }
  std::string description() const override { return device_.description(); }
  absl::StatusOr<Memory> QueryMemory() const override {
    const absl::Status broken = health();
    return broken.ok() ? device_.QueryMemory() : broken;
  }
  absl::StatusOr<DeviceSpan> Allocate(int64_t bytes) override { return device_.Allocate(bytes); }
  void Free(DeviceSpan allocated) override { device_.Free(allocated); }
  absl::StatusOr<std::span<std::byte>> AllocateHost(int64_t bytes) override {
    return device_.AllocateHost(bytes);
  }
  void FreeHost(std::span<std::byte> allocated) override { device_.FreeHost(allocated); }
  int64_t host_bytes() const override { return device_.host_bytes(); }
  std::span<std::byte> HostView(DeviceSpan span) const override { return device_.HostView(span); }
  absl::StatusOr<std::unique_ptr<Queue>> NewQueue() override { return device_.NewQueue(); }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override { return device_.NewEvent(); }
  Ops& ops() override { return ops_; }
  StepOps& step_ops() override { return device_.step_ops(); }
  absl::Status health() const override {
    MutexLock lock(mutex_);
    return health_;
  }

 private:
  class GatedOps final : public Ops {
   public:
    GatedOps(Ops& ops, Gate& gate) : ops_(ops), gate_(gate) {}

    absl::Status Quantize(Queue& queue, const QuantizeArgs& args) override {
      gate_.Pass();
      return ops_.Quantize(queue, args);
    }
    absl::Status Dequantize(Queue& queue, const DequantizeArgs& args) override {
      return ops_.Dequantize(queue, args);
    }
    absl::Status FindNonFinite(Queue& queue, const FindNonFiniteArgs& args) override {
      return ops_.FindNonFinite(queue, args);
    }
    absl::Status ExpandF8(Queue& queue, const ExpandF8Args& args) override {
      return ops_.ExpandF8(queue, args);
    }
    absl::Status MeasureError(Queue& queue, const MeasureErrorArgs& args) override {
      return ops_.MeasureError(queue, args);
    }
    absl::Status MeanScale(Queue& queue, const MeanScaleArgs& args) override {
      return ops_.MeanScale(queue, args);
    }
    absl::Status QuantizeScales(Queue& queue, const QuantizeScalesArgs& args) override {
      return ops_.QuantizeScales(queue, args);
    }
    absl::Status DequantizeScales(Queue& queue, const DequantizeScalesArgs& args) override {
      return ops_.DequantizeScales(queue, args);
    }

   private:
    Ops& ops_;
    Gate& gate_;
  };

  Device& device_;
  Gate gate_;
  GatedOps ops_;
  mutable Mutex mutex_;
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
