// Norms whose numbers stay in registers, and what is added to them before.

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/early_launch.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr int kThreadsMax = 1024;
constexpr int kQuadsMax = 2;  // Of four numbers, a thread.

// The sum of a CTA's values in every thread: lanes, then warps, each as a tree. `warps` is of this
// call alone.
__device__ __forceinline__ float CtaSum(float value, float* warps) {  // [32]
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  value = WarpSum(value);
  if (lane == 0) {
    warps[threadIdx.x / kWarpThreads] = value;
  }
  __syncthreads();
  return WarpSum(lane < static_cast<int>(blockDim.x) / kWarpThreads ? warps[lane] : 0.0f);
}

struct WideNorm {
  NormKind kind;
  float epsilon;
  bool shared_weights;
  WeightElements weights;  // [width], or [groups, width] if not shared
  Rows addend;             // [M, groups, width]; data is null if there is none
  Rows source;             // [M, groups, width]; the addend is added to it in place
  Rows target;             // [M, groups, width]; may be the source
};

// A CTA normalizes one group. Its size depends on the width alone, and so does the order of sums.
//
//   grid   bound x groups CTAs
//   block  32 to 1024 threads
//   bytes  4 read + 4 written a number, with an addend 8 + 8; bound by latency
template <int kQuads>
__global__ void __launch_bounds__(kThreadsMax)
    WideNormKernel(LiveCount rows, const __grid_constant__ WideNorm args) {
  __shared__ float warps[2][kWarpThreads];
  const int row = static_cast<int>(blockIdx.x);
  const int group = static_cast<int>(blockIdx.y);
  const int width = args.source.width;
  const auto place = [](int quad) {
    return 4 * (static_cast<int>(threadIdx.x) + quad * static_cast<int>(blockDim.x));
  };
  const float offset = args.kind == NormKind::kZeroCentredRms ? 1.0f : 0.0f;
  const int64_t first_weight = args.shared_weights ? 0 : static_cast<int64_t>(group) * width;
  float weights[kQuads][4];
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weights[quad][i] =
          place(quad) < width ? offset + args.weights.At(first_weight + place(quad) + i) : 0.0f;
    }
  }
  LetNextBegin();
  WaitForPrevious();
  if (row >= rows.Read()) {
    return;
  }
  float* const source = args.source.At(row, group);
  float x[kQuads][4] = {};
  float sum = 0;
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    if (place(quad) < width) {
      auto* const numbers = reinterpret_cast<float4*>(source + place(quad));
      float4 four = *numbers;
      if (args.addend.data != nullptr) {
        const float4 other =
            *reinterpret_cast<const float4*>(args.addend.At(row, group) + place(quad));
        four = make_float4(four.x + other.x, four.y + other.y, four.z + other.z, four.w + other.w);
        *numbers = four;
      }
      x[quad][0] = four.x;
      x[quad][1] = four.y;
      x[quad][2] = four.z;
      x[quad][3] = four.w;
      sum += (four.x + four.y) + (four.z + four.w);
    }
  }
  const float mean =
      args.kind == NormKind::kLayer ? CtaSum(sum, warps[0]) / static_cast<float>(width) : 0.0f;
  float squares = 0;
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float distance = place(quad) < width ? x[quad][i] - mean : 0.0f;
      squares += distance * distance;
    }
  }
  const float variance = CtaSum(squares, warps[1]) / static_cast<float>(width);
  const float factor = 1 / sqrtf(variance + args.epsilon);
  float* const target = args.target.At(row, group);
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    if (place(quad) < width) {
      float y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        y[i] = (x[quad][i] - mean) * factor * weights[quad][i];
      }
      *reinterpret_cast<float4*>(target + place(quad)) = make_float4(y[0], y[1], y[2], y[3]);
    }
  }
}

// Whether four numbers at a multiple of four in every group lie where one load reads them.
bool HasQuads(const Activations& activations) {
  return activations.width % 4 == 0 && activations.row_stride % 4 == 0 &&
         activations.group_stride % 4 == 0 && IsAligned(activations.span.address(), 16);
}

}  // namespace

bool LaunchWideNorm(const Activations& addend, const NormArgs& args, cudaStream_t stream) {
  const int64_t width = args.source.width;
  if (!HasQuads(args.source) || !HasQuads(args.target) ||
      (!addend.span.empty() && !HasQuads(addend)) || width > 4 * kQuadsMax * kThreadsMax) {
    return false;
  }
  const int quads = width <= 4 * kThreadsMax ? 1 : kQuadsMax;
  const int64_t threads = RoundUp(CeilDivide(width, int64_t{4} * quads), kWarpThreads);
  const WideNorm norm = {args.kind,
                         args.epsilon,
                         args.weight.span.bytes() == width * BytesPerElement(args.weight.type),
                         WeightElementsOf(args.weight),
                         addend.span.empty() ? Rows{} : RowsOf(addend),
                         RowsOf(args.source),
                         RowsOf(args.target)};
  const dim3 grid(static_cast<unsigned int>(args.rows.bound),
                  static_cast<unsigned int>(args.source.groups));
  (void)LaunchEarly(CurrentDeviceShape(), quads == 1 ? WideNormKernel<1> : WideNormKernel<2>, grid,
                    static_cast<int>(threads), 0, stream, LiveCountOf(args.rows), norm);
  return true;
}

cudaError_t LaunchAddNorm(const AddNormArgs& args, cudaStream_t stream) {
  const bool is_one = args.add.rows == args.norm.rows && args.add.target == args.norm.source;
  if (is_one && LaunchWideNorm(args.add.source, args.norm, stream)) {
    return cudaGetLastError();
  }
  const cudaError_t error = LaunchAdd(args.add, stream);
  return error == cudaSuccess ? LaunchNorm(args.norm, stream) : error;
}

cudaError_t LoadWideNorm() { return Touch(WideNormKernel<1>, WideNormKernel<2>); }

}  // namespace nibble
