#include "tests/support/faulty_device.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"

namespace nibble {

class FaultyEvent final : public Event {
 public:
  FaultyEvent(FaultyDevice& device, std::unique_ptr<Event> event)
      : device_(device), event_(std::move(event)) {
    ++device_.live_objects_;
  }
  ~FaultyEvent() override { --device_.live_objects_; }

  absl::Status Wait() override {
    absl::Status entered = device_.Enter("Event::Wait");
    return entered.ok() ? event_->Wait() : entered;
  }

  Event& wrapped() { return *event_; }

 private:
  FaultyDevice& device_;
  std::unique_ptr<Event> event_;
};

class FaultyQueue final : public Queue {
 public:
  FaultyQueue(FaultyDevice& device, std::unique_ptr<Queue> queue)
      : device_(device), queue_(std::move(queue)) {
    ++device_.live_objects_;
  }
  ~FaultyQueue() override { --device_.live_objects_; }

  absl::Status CopyToDevice(std::span<const std::byte> source, DeviceSpan target) override {
    absl::Status entered = device_.Enter("CopyToDevice");
    return entered.ok() ? queue_->CopyToDevice(source, target) : entered;
  }
  absl::Status CopyToHost(DeviceSpan source, std::span<std::byte> target) override {
    absl::Status entered = device_.Enter("CopyToHost");
    return entered.ok() ? queue_->CopyToHost(source, target) : entered;
  }
  absl::Status CopyOnDevice(DeviceSpan source, DeviceSpan target) override {
    absl::Status entered = device_.Enter("CopyOnDevice");
    return entered.ok() ? queue_->CopyOnDevice(source, target) : entered;
  }
  absl::Status Record(Event& event) override {
    absl::Status entered = device_.Enter("Record");
    return entered.ok() ? queue_->Record(static_cast<FaultyEvent&>(event).wrapped()) : entered;
  }
  absl::Status Synchronize() override {
    absl::Status status = device_.Enter("Synchronize");
    status.Update(queue_->Synchronize());
    return status;
  }
  absl::StatusOr<std::unique_ptr<Recording>> RecordWork(
      std::function<absl::Status()> work) override {
    absl::Status entered = device_.Enter("RecordWork");
    return entered.ok() ? queue_->RecordWork(std::move(work))
                        : absl::StatusOr<std::unique_ptr<Recording>>(entered);
  }
  absl::Status Replay(Recording& recording) override {
    absl::Status entered = device_.Enter("Replay");
    return entered.ok() ? queue_->Replay(recording) : entered;
  }

  Queue& wrapped() { return *queue_; }

 private:
  FaultyDevice& device_;
  std::unique_ptr<Queue> queue_;
};

class FaultyOps final : public Ops {
 public:
  explicit FaultyOps(FaultyDevice& device) : device_(device) {}

  absl::Status Quantize(Queue& queue, const QuantizeArgs& args) override {
    absl::Status entered = device_.Enter("Quantize");
    return entered.ok() ? wrapped().Quantize(Unwrap(queue), args) : entered;
  }
  absl::Status Dequantize(Queue& queue, const DequantizeArgs& args) override {
    absl::Status entered = device_.Enter("Dequantize");
    return entered.ok() ? wrapped().Dequantize(Unwrap(queue), args) : entered;
  }
  absl::Status FindNonFinite(Queue& queue, const FindNonFiniteArgs& args) override {
    absl::Status entered = device_.Enter("FindNonFinite");
    return entered.ok() ? wrapped().FindNonFinite(Unwrap(queue), args) : entered;
  }
  absl::Status ExpandF8(Queue& queue, const ExpandF8Args& args) override {
    absl::Status entered = device_.Enter("ExpandF8");
    return entered.ok() ? wrapped().ExpandF8(Unwrap(queue), args) : entered;
  }
  absl::Status MeasureError(Queue& queue, const MeasureErrorArgs& args) override {
    absl::Status entered = device_.Enter("MeasureError");
    return entered.ok() ? wrapped().MeasureError(Unwrap(queue), args) : entered;
  }
  absl::Status MeanScale(Queue& queue, const MeanScaleArgs& args) override {
    absl::Status entered = device_.Enter("MeanScale");
    return entered.ok() ? wrapped().MeanScale(Unwrap(queue), args) : entered;
  }
  absl::Status QuantizeScales(Queue& queue, const QuantizeScalesArgs& args) override {
    absl::Status entered = device_.Enter("QuantizeScales");
    return entered.ok() ? wrapped().QuantizeScales(Unwrap(queue), args) : entered;
  }
  absl::Status DequantizeScales(Queue& queue, const DequantizeScalesArgs& args) override {
    absl::Status entered = device_.Enter("DequantizeScales");
    return entered.ok() ? wrapped().DequantizeScales(Unwrap(queue), args) : entered;
  }

 private:
  static Queue& Unwrap(Queue& queue) { return static_cast<FaultyQueue&>(queue).wrapped(); }
  Ops& wrapped() { return device_.device_.ops(); }

  FaultyDevice& device_;
};

FaultyDevice::FaultyDevice(Device& device)
    : device_(device), ops_(std::make_unique<FaultyOps>(*this)) {}

FaultyDevice::~FaultyDevice() { Check(live_objects_ == 0, "a device outlives its queues"); }

void FaultyDevice::FailCall(int64_t call_number) {
  MutexLock lock(mutex_);
  failed_call_.clear();
  calls_ = 0;
  failing_call_ = call_number;
}

std::string FaultyDevice::failed_call() const {
  MutexLock lock(mutex_);
  return failed_call_;
}

absl::Status FaultyDevice::Enter(const char* call) const {
  const int64_t number = ++calls_;
  if (number != failing_call_) {
    return absl::OkStatus();
  }
  MutexLock lock(mutex_);
  failed_call_ = call;
  return absl::InternalError(absl::StrCat("injected: call ", number, ", ", call, ", failed"));
}

absl::StatusOr<Device::Memory> FaultyDevice::QueryMemory() const {
  if (absl::Status entered = Enter("QueryMemory"); !entered.ok()) {
    return entered;
  }
  return device_.QueryMemory();
}

absl::StatusOr<DeviceSpan> FaultyDevice::Allocate(int64_t bytes) {
  if (absl::Status entered = Enter("Allocate"); !entered.ok()) {
    ErrorDetails details;
    details.reason = "DEVICE_MEMORY_TAKEN";
    details.resource = name();
    details.needed_bytes = bytes;
    details.available_bytes = 0;
    return WithDetails(absl::ResourceExhaustedError(entered.message()), details);
  }
  return device_.Allocate(bytes);
}

absl::StatusOr<std::span<std::byte>> FaultyDevice::AllocateHost(int64_t bytes) {
  if (absl::Status entered = Enter("AllocateHost"); !entered.ok()) {
    return absl::ResourceExhaustedError(entered.message());
  }
  return device_.AllocateHost(bytes);
}

absl::StatusOr<std::unique_ptr<Queue>> FaultyDevice::NewQueue() {
  if (absl::Status entered = Enter("NewQueue"); !entered.ok()) {
    return entered;
  }
  absl::StatusOr<std::unique_ptr<Queue>> queue = device_.NewQueue();
  if (!queue.ok()) {
    return queue;
  }
  return std::make_unique<FaultyQueue>(*this, *std::move(queue));
}

absl::StatusOr<std::unique_ptr<Event>> FaultyDevice::NewEvent() {
  if (absl::Status entered = Enter("NewEvent"); !entered.ok()) {
    return entered;
  }
  absl::StatusOr<std::unique_ptr<Event>> event = device_.NewEvent();
  if (!event.ok()) {
    return event;
  }
  return std::make_unique<FaultyEvent>(*this, *std::move(event));
}

Ops& FaultyDevice::ops() { return *ops_; }

}  // namespace nibble
