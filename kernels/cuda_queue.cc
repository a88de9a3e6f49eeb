#include "kernels/cuda_queue.h"

#include <bit>

namespace nibble {
namespace {

void* DevicePointer(DeviceSpan span) { return std::bit_cast<void*>(span.address()); }

}  // namespace

absl::StatusOr<std::unique_ptr<Event>> CudaEvent::Create(CudaContext& context) {
  absl::Status status = context.MakeCurrent();
  if (!status.ok()) {
    return status;
  }
  // Blocking, because a thread that spins takes a core from the readers of a load.
  cudaEvent_t event = nullptr;
  status = context.Check(
      cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync),
      "cudaEventCreate");
  if (!status.ok()) {
    return status;
  }
  return std::unique_ptr<Event>(new CudaEvent(context, event));
}

CudaEvent::~CudaEvent() {
  context_.Check(cudaEventDestroy(event_), "cudaEventDestroy").IgnoreError();
}

absl::Status CudaEvent::Wait() {
  return context_.Check(cudaEventSynchronize(event_), "cudaEventSynchronize");
}

CudaRecording::~CudaRecording() {
  context_.Check(cudaGraphExecDestroy(graph_), "cudaGraphExecDestroy").IgnoreError();
}

absl::StatusOr<std::unique_ptr<Queue>> CudaQueue::Create(CudaContext& context) {
  absl::Status status = context.MakeCurrent();
  if (!status.ok()) {
    return status;
  }
  // Non-blocking: no other queue's work waits for the default stream, which nobody uses.
  cudaStream_t stream = nullptr;
  status =
      context.Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  if (!status.ok()) {
    return status;
  }
  return std::unique_ptr<Queue>(new CudaQueue(context, stream));
}

CudaQueue::~CudaQueue() {
  context_.Check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize").IgnoreError();
  context_.Check(cudaStreamDestroy(stream_), "cudaStreamDestroy").IgnoreError();
}

absl::Status CudaQueue::CopyToDevice(std::span<const std::byte> source, DeviceSpan target) {
  Check(std::ssize(source) == target.bytes(), "a copy has equal ends");
  return Copy(DevicePointer(target), source.data(), target.bytes(), cudaMemcpyHostToDevice);
}

absl::Status CudaQueue::CopyToHost(DeviceSpan source, std::span<std::byte> target) {
  Check(std::ssize(target) == source.bytes(), "a copy has equal ends");
  return Copy(target.data(), DevicePointer(source), source.bytes(), cudaMemcpyDeviceToHost);
}

absl::Status CudaQueue::CopyOnDevice(DeviceSpan source, DeviceSpan target) {
  Check(source.bytes() == target.bytes(), "a copy has equal ends");
  return Copy(DevicePointer(target), DevicePointer(source), source.bytes(),
              cudaMemcpyDeviceToDevice);
}

absl::Status CudaQueue::Copy(void* target, const void* source, int64_t bytes, cudaMemcpyKind kind) {
  absl::Status status = context_.MakeCurrent();
  if (!status.ok() || bytes == 0) {
    return status;
  }
  return context_.Check(cudaMemcpyAsync(target, source, static_cast<size_t>(bytes), kind, stream_),
                        "cudaMemcpyAsync");
}

absl::Status CudaQueue::Record(Event& event) {
  absl::Status status = context_.MakeCurrent();
  if (!status.ok()) {
    return status;
  }
  return context_.Check(cudaEventRecord(static_cast<CudaEvent&>(event).event(), stream_),
                        "cudaEventRecord");
}

absl::Status CudaQueue::Synchronize() {
  return context_.Check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

absl::StatusOr<std::unique_ptr<Recording>> CudaQueue::RecordWork(
    std::function<absl::Status()> work) {
  absl::Status status = context_.MakeCurrent();
  // Other threads go on allocating and copying meanwhile.
  status.Update(context_.Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
                               "cudaStreamBeginCapture"));
  if (!status.ok()) {
    return status;
  }
  status = work();
  // Ends the capture after an error too: the stream is of no use until then.
  cudaGraph_t graph = nullptr;
  status.Update(context_.Check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture"));
  cudaGraphExec_t executable = nullptr;
  if (status.ok()) {
    status = context_.Check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  }
  if (graph != nullptr) {
    status.Update(context_.Check(cudaGraphDestroy(graph), "cudaGraphDestroy"));
  }
  if (executable == nullptr) {
    return status;
  }
  auto recording = std::make_unique<CudaRecording>(context_, executable);
  // Takes the device's memory now and not in the first replay.
  status.Update(context_.Check(cudaGraphUpload(executable, stream_), "cudaGraphUpload"));
  if (!status.ok()) {
    return status;
  }
  return recording;
}

absl::Status CudaQueue::Replay(Recording& recording) {
  absl::Status status = context_.MakeCurrent();
  if (!status.ok()) {
    return status;
  }
  return context_.Check(cudaGraphLaunch(static_cast<CudaRecording&>(recording).graph(), stream_),
                        "cudaGraphLaunch");
}

}  // namespace nibble
