// Measuring GPU work: device memory, and graphs timed with events.

#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "kernels/device.h"

namespace nibble {

inline void Check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    std::exit(1);
  }
}

// Device memory that lives as long as the measurement.
class Memory {
 public:
  ~Memory() {
    for (void* const pointer : pointers_) {
      cudaFree(pointer);
    }
  }

  DeviceSpan Cut(int64_t bytes) {
    void* pointer = nullptr;
    Check(cudaMalloc(&pointer, static_cast<size_t>(bytes)), "cudaMalloc");
    pointers_.push_back(pointer);
    return {reinterpret_cast<uint64_t>(pointer), bytes};
  }

  // Repeats `pattern`, so that a matrix is random without many random numbers.
  template <typename T>
  DeviceSpan Fill(int64_t count, const std::vector<T>& pattern) {
    const DeviceSpan span = Cut(count * static_cast<int64_t>(sizeof(T)));
    const auto pattern_bytes = static_cast<int64_t>(pattern.size() * sizeof(T));
    for (int64_t offset = 0; offset < span.bytes(); offset += pattern_bytes) {
      const int64_t bytes = std::min(pattern_bytes, span.bytes() - offset);
      Check(cudaMemcpy(reinterpret_cast<void*>(span.address() + static_cast<uint64_t>(offset)),
                       pattern.data(), static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
            "cudaMemcpy");
    }
    return span;
  }

 private:
  std::vector<void*> pointers_;
};

struct Microseconds {
  double median = 0;
  double lowest = 0;
  double highest = 0;
};

// Times `work`, which is queued `count` times with numbers from 0 on in one graph; the result is
// that of one.
class Timer {
 public:
  explicit Timer(int rounds) : rounds_(rounds) {
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    Check(cudaEventCreate(&begin_), "cudaEventCreate");
    Check(cudaEventCreate(&end_), "cudaEventCreate");
  }

  cudaStream_t stream() const { return stream_; }

  Microseconds Time(int count, const std::function<void(int)>& work) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    work(0);  // Whatever is set up by a first call.
    Check(cudaStreamSynchronize(stream_), "first call");
    Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "begin capture");
    for (int i = 0; i < count; ++i) {
      work(i);
    }
    Check(cudaStreamEndCapture(stream_, &graph), "end capture");
    Check(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
    std::vector<double> times;
    for (int round = -1; round < rounds_; ++round) {
      Check(cudaEventRecord(begin_, stream_), "record");
      Check(cudaGraphLaunch(executable, stream_), "launch");
      Check(cudaEventRecord(end_, stream_), "record");
      Check(cudaEventSynchronize(end_), "products");
      float milliseconds = 0;
      Check(cudaEventElapsedTime(&milliseconds, begin_, end_), "elapsed time");
      if (round >= 0) {
        times.push_back(double{milliseconds} * 1e3 / count);
      }
    }
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    std::sort(times.begin(), times.end());
    return {times[times.size() / 2], times.front(), times.back()};
  }

 private:
  const int rounds_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace nibble
