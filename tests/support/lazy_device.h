// A device in host memory that behaves like a GPU where the host device does not: the host cannot
// see its memory, allocations come in 2 MiB, and queued work runs only when somebody waits for it.
// Code that reuses memory before the work on it is done gives wrong results here.

#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace nibble {

class LazyQueue;

// Knows how much of its queue's work was there when it was recorded.
class LazyEvent final : public Event {
 public:
  inline absl::Status Wait() override;

 private:
  friend class LazyQueue;
  LazyQueue* queue_ = nullptr;
  int64_t work_count_ = 0;
};

// Work in order, run by the thread that waits.
class LazyQueue final : public Queue {
 public:
  explicit LazyQueue(std::unique_ptr<Queue> queue) : queue_(std::move(queue)) {}
  ~LazyQueue() override { Check(work_.empty(), "a queue ends after its work"); }

  void Push(std::function<absl::Status(Queue&)> work) { work_.push_back(std::move(work)); }

  absl::Status CopyToDevice(std::span<const std::byte> source, DeviceSpan target) override {
    Push([=](Queue& queue) { return queue.CopyToDevice(source, target); });
    return absl::OkStatus();
  }
  absl::Status CopyToHost(DeviceSpan source, std::span<std::byte> target) override {
    Push([=](Queue& queue) { return queue.CopyToHost(source, target); });
    return absl::OkStatus();
  }
  absl::Status CopyOnDevice(DeviceSpan source, DeviceSpan target) override {
    Push([=](Queue& queue) { return queue.CopyOnDevice(source, target); });
    return absl::OkStatus();
  }
  absl::Status Record(Event& event) override {
    auto& lazy = static_cast<LazyEvent&>(event);
    lazy.queue_ = this;
    lazy.work_count_ = done_count_ + static_cast<int64_t>(work_.size());
    return absl::OkStatus();
  }
  absl::Status Synchronize() override {
    return RunUntil(done_count_ + static_cast<int64_t>(work_.size()));
  }
  absl::StatusOr<std::unique_ptr<Recording>> RecordWork(
      std::function<absl::Status()> work) override {
    return queue_->RecordWork(std::move(work));
  }
  // What was recorded pushes its own work.
  absl::Status Replay(Recording& recording) override { return queue_->Replay(recording); }

  absl::Status RunUntil(int64_t work_count) {
    while (done_count_ < work_count) {
      error_.Update(work_.front()(*queue_));
      work_.pop_front();
      ++done_count_;
    }
    return error_;
  }

 private:
  const std::unique_ptr<Queue> queue_;
  std::deque<std::function<absl::Status(Queue&)>> work_;
  int64_t done_count_ = 0;
  absl::Status error_;
};

absl::Status LazyEvent::Wait() {
  return queue_ == nullptr ? absl::OkStatus() : queue_->RunUntil(work_count_);
}

class LazyOps final : public Ops {
 public:
  explicit LazyOps(Ops& ops) : ops_(ops) {}

  absl::Status Quantize(Queue& queue, const QuantizeArgs& args) override {
    return Push(queue, args, [this, args](Queue& inner) { return ops_.Quantize(inner, args); });
  }
  absl::Status Dequantize(Queue& queue, const DequantizeArgs& args) override {
    return Push(queue, args, [this, args](Queue& inner) { return ops_.Dequantize(inner, args); });
  }
  absl::Status FindNonFinite(Queue& queue, const FindNonFiniteArgs& args) override {
    return Push(queue, args,
                [this, args](Queue& inner) { return ops_.FindNonFinite(inner, args); });
  }
  absl::Status ExpandF8(Queue& queue, const ExpandF8Args& args) override {
    return Push(queue, args, [this, args](Queue& inner) { return ops_.ExpandF8(inner, args); });
  }
  absl::Status MeasureError(Queue& queue, const MeasureErrorArgs& args) override {
    return Push(queue, args, [this, args](Queue& inner) { return ops_.MeasureError(inner, args); });
  }
  absl::Status MeanScale(Queue& queue, const MeanScaleArgs& args) override {
    return Push(queue, args, [this, args](Queue& inner) { return ops_.MeanScale(inner, args); });
  }
  absl::Status QuantizeScales(Queue& queue, const QuantizeScalesArgs& args) override {
    return Push(queue, args,
                [this, args](Queue& inner) { return ops_.QuantizeScales(inner, args); });
  }
  absl::Status DequantizeScales(Queue& queue, const DequantizeScalesArgs& args) override {
    return Push(queue, args,
                [this, args](Queue& inner) { return ops_.DequantizeScales(inner, args); });
  }

 private:
  template <typename Args>
  static absl::Status Push(Queue& queue, const Args& args,
                           std::function<absl::Status(Queue&)> work) {
    if (absl::Status status = CheckArgs(args); !status.ok()) {
      return status;
    }
    static_cast<LazyQueue&>(queue).Push(std::move(work));
    return absl::OkStatus();
  }

  Ops& ops_;
};

// Must not outlive `device`, a host device.
class LazyDevice final : public Device {
 public:
  explicit LazyDevice(Device& device) : device_(device), ops_(device.ops()) {}

  const DeviceTraits& traits() const override { return kCudaTraits; }
  std::string name() const override { return "lazy"; }
  std::string description() const override { return "a host device that feels like a GPU"; }
  absl::StatusOr<Memory> QueryMemory() const override { return device_.QueryMemory(); }
  absl::StatusOr<DeviceSpan> Allocate(int64_t bytes) override {
    Check(bytes % kCudaTraits.granularity_bytes == 0, "an allocation is a multiple of 2 MiB");
    return device_.Allocate(bytes);
  }
  void Free(DeviceSpan allocated) override { device_.Free(allocated); }
  absl::StatusOr<std::span<std::byte>> AllocateHost(int64_t bytes) override {
    return device_.AllocateHost(bytes);
  }
  void FreeHost(std::span<std::byte> allocated) override { device_.FreeHost(allocated); }
  int64_t host_bytes() const override { return device_.host_bytes(); }
  std::span<std::byte> HostView(DeviceSpan) const override { return {}; }
  absl::StatusOr<std::unique_ptr<Queue>> NewQueue() override {
    absl::StatusOr<std::unique_ptr<Queue>> queue = device_.NewQueue();
    if (!queue.ok()) {
      return queue.status();
    }
    return std::make_unique<LazyQueue>(*std::move(queue));
  }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    return std::make_unique<LazyEvent>();
  }
  Ops& ops() override { return ops_; }
  StepOps& step_ops() override { return device_.step_ops(); }
  absl::Status health() const override { return device_.health(); }

 private:
  Device& device_;
  LazyOps ops_;
};

}  // namespace nibble
