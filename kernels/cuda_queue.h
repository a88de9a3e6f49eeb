// Streams and events of CUDA behind the Queue and Event of device.h.

#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda_context.h"
#include "kernels/device.h"

namespace nibble {

class CudaEvent final : public Event {
 public:
  static absl::StatusOr<std::unique_ptr<Event>> Create(CudaContext& context);
  ~CudaEvent() override;

  absl::Status Wait() override;

  cudaEvent_t event() const { return event_; }

 private:
  CudaEvent(CudaContext& context, cudaEvent_t event) : context_(context), event_(event) {}

  CudaContext& context_;
  const cudaEvent_t event_;
};

// A graph, ready to be launched.
class CudaRecording final : public Recording {
 public:
  CudaRecording(CudaContext& context, cudaGraphExec_t graph) : context_(context), graph_(graph) {}
  ~CudaRecording() override;

  cudaGraphExec_t graph() const { return graph_; }

 private:
  CudaContext& context_;
  const cudaGraphExec_t graph_;
};

class CudaQueue final : public Queue {
 public:
  static absl::StatusOr<std::unique_ptr<Queue>> Create(CudaContext& context);

  // Waits for what is queued: memory that the work uses may be freed next.
  ~CudaQueue() override;

  absl::Status CopyToDevice(std::span<const std::byte> source, DeviceSpan target) override;
  absl::Status CopyToHost(DeviceSpan source, std::span<std::byte> target) override;
  absl::Status CopyOnDevice(DeviceSpan source, DeviceSpan target) override;
  absl::Status Record(Event& event) override;
  absl::Status Synchronize() override;
  absl::StatusOr<std::unique_ptr<Recording>> RecordWork(
      std::function<absl::Status()> work) override;
  absl::Status Replay(Recording& recording) override;

  cudaStream_t stream() const { return stream_; }

 private:
  CudaQueue(CudaContext& context, cudaStream_t stream) : context_(context), stream_(stream) {}
  absl::Status Copy(void* target, const void* source, int64_t bytes, cudaMemcpyKind kind);

  CudaContext& context_;
  const cudaStream_t stream_;
};

}  // namespace nibble
