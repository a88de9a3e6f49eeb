// What is done number by number between the matrices.

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/early_launch.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr int kThreads = 256;
constexpr int kFrequenciesMax = 1024;  // CheckArgs(RopeArgs)

// A CTA turns a row: cosines and sines once, then every head with them. The accurate functions: a
// position times a frequency is thousands of radians.
//
//   grid   bound CTAs
//   block  256 threads
//   bytes  8 read and written a number that is turned; bound by latency
__global__ void __launch_bounds__(kThreads)
    RopeKernel(LiveCount rows, const int32_t* __restrict__ positions,  // [M]
               const float* __restrict__ frequencies,                  // [count]
               int count, bool interleaved, float magnitude,
               Rows heads) {  // [M, groups, width]
  __shared__ float cosines[kFrequenciesMax];
  __shared__ float sines[kFrequenciesMax];
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  if (row >= rows.Read()) {
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const float angle = __fmul_rn(static_cast<float>(positions[row]), frequencies[i]);
    cosines[i] = cosf(angle) * magnitude;
    sines[i] = sinf(angle) * magnitude;
  }
  __syncthreads();
  const int64_t pairs = static_cast<int64_t>(heads.groups) * count;
  for (int64_t pair = threadIdx.x; pair < pairs; pair += kThreads) {
    const int i = static_cast<int>(pair % count);
    float* const head = heads.At(row, pair / count);
    float& one = head[interleaved ? 2 * i : i];
    float& other = head[interleaved ? 2 * i + 1 : i + count];
    const float before = one;
    one = before * cosines[i] - other * sines[i];
    other = other * cosines[i] + before * sines[i];
  }
}

__device__ __forceinline__ float Activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + expf(-x));
    case Activation::kSigmoid:
      return 1 / (1 + expf(-x));
    default: {
      constexpr float kSqrt2OverPi = 0.7978845608028654f;
      return 0.5f * x * (1 + tanhf(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
    }
  }
}

// A thread a number, here and below.
//
//   grid   bound x ceil(groups * width / 256) CTAs
//   block  256 threads
//   bytes  8 read + 4 written a number; bound by memory bandwidth
__global__ void __launch_bounds__(kThreads)
    GateKernel(LiveCount rows, Activation activation, bool one_gate,
               Rows gate,      // [M, groups, width], or [M] if one_gate
               Rows value,     // [M, groups, width]
               Rows target) {  // [M, groups, width]
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  const int64_t index = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (row >= rows.Read() || index >= static_cast<int64_t>(value.groups) * value.width) {
    return;
  }
  const int64_t group = index / value.width;
  const int64_t i = index % value.width;
  const float x = one_gate ? *gate.At(row) : gate.At(row, group)[i];
  target.At(row, group)[i] = Activate(activation, x) * value.At(row, group)[i];
}

//   grid   bound x ceil(width / 256) CTAs
//   block  256 threads
//   bytes  8 read + 4 written a number; bound by memory bandwidth
__global__ void __launch_bounds__(kThreads) AddKernel(LiveCount rows,
                                                      Rows source,    // [M, width]
                                                      Rows target) {  // [M, width]
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  const int64_t i = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (row < rows.Read() && i < target.width) {
    target.At(row)[i] += source.At(row)[i];
  }
}

// A row that the source has not becomes NaN.
//
//   grid   bound x ceil(width / 256) CTAs
//   block  256 threads
//   bytes  4 read + 4 written a number; bound by memory bandwidth
__global__ void __launch_bounds__(kThreads)
    GatherRowsKernel(LiveCount rows, const int32_t* __restrict__ row_indices,  // [M]
                     int64_t source_count,                                     // Numbers of it.
                     Rows source,                                              // [.., width]
                     Rows target) {                                            // [M, width]
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  const int64_t i = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (row >= rows.Read() || i >= target.width) {
    return;
  }
  const int64_t index = row_indices[row];
  const bool holds = index >= 0 && index * source.row_stride + target.width <= source_count;
  target.At(row)[i] = holds ? source.At(index)[i] : NAN;
}

//   grid   bound x ceil(width / 256) CTAs
//   block  256 threads
//   bytes  4 read + 4 written a number; bound by memory bandwidth
__global__ void __launch_bounds__(kThreads)
    ScaleLogitsKernel(LiveCount rows, float scale, float softcap,
                      Rows logits) {  // [M, width]
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  const int64_t i = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (row < rows.Read() && i < logits.width) {
    float& logit = logits.At(row)[i];
    const float x = logit * scale;
    logit = softcap == 0 ? x : softcap * tanhf(x / softcap);
  }
}

dim3 GridOf(const RowCount& rows, int64_t count) {
  return {static_cast<unsigned int>(rows.bound), CtasFor(count, kThreads), 1};
}

}  // namespace

cudaError_t LaunchRope(const RopeArgs& args, cudaStream_t stream) {
  return LaunchEarly(CurrentDeviceShape(), RopeKernel, GridOf(args.rows, 1), kThreads, 0, stream,
                     LiveCountOf(args.rows), PointerTo<const int32_t>(args.positions),
                     PointerTo<const float>(args.frequencies),
                     static_cast<int>(args.frequency_count), args.interleaved, args.magnitude,
                     RowsOf(args.heads));
}

cudaError_t LaunchGate(const GateArgs& args, cudaStream_t stream) {
  const bool one_gate = args.gate.width == 1 && args.gate.groups == 1;
  return LaunchEarly(CurrentDeviceShape(), GateKernel,
                     GridOf(args.rows, args.value.groups * args.value.width), kThreads, 0, stream,
                     LiveCountOf(args.rows), args.activation, one_gate, RowsOf(args.gate),
                     RowsOf(args.value), RowsOf(args.target));
}

cudaError_t LaunchAdd(const AddArgs& args, cudaStream_t stream) {
  return LaunchEarly(CurrentDeviceShape(), AddKernel, GridOf(args.rows, args.target.width),
                     kThreads, 0, stream, LiveCountOf(args.rows), RowsOf(args.source),
                     RowsOf(args.target));
}

cudaError_t LaunchGatherRows(const GatherRowsArgs& args, cudaStream_t stream) {
  constexpr auto kNumberBytes = static_cast<int64_t>(sizeof(float));
  return LaunchEarly(
      CurrentDeviceShape(), GatherRowsKernel, GridOf(args.rows, args.target.width), kThreads, 0,
      stream, LiveCountOf(args.rows), PointerTo<const int32_t>(args.row_indices),
      args.source.span.bytes() / kNumberBytes, RowsOf(args.source), RowsOf(args.target));
}

cudaError_t LaunchScaleLogits(const ScaleLogitsArgs& args, cudaStream_t stream) {
  return LaunchEarly(CurrentDeviceShape(), ScaleLogitsKernel, GridOf(args.rows, args.logits.width),
                     kThreads, 0, stream, LiveCountOf(args.rows), args.scale, args.softcap,
                     RowsOf(args.logits));
}

cudaError_t LoadStepElementwise() {
  return Touch(RopeKernel, GateKernel, AddKernel, GatherRowsKernel, ScaleLogitsKernel);
}

}  // namespace nibble
