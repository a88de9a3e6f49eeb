// Mixture of experts: which experts a row goes to, and the sum of what they gave.

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr int kRouteThreads = 128;
constexpr int kRouteWarps = kRouteThreads / kWarpThreads;
constexpr int kCombineThreads = 256;

struct Choice {
  float value;
  int expert;
};

// Whether `left` goes before `right`: by value, of equal ones the lower expert; NaN last.
__device__ __forceinline__ bool Before(const Choice& left, const Choice& right) {
  if (left.value > right.value || (isnan(right.value) && !isnan(left.value))) {
    return true;
  }
  const bool equal = left.value == right.value || (isnan(left.value) && isnan(right.value));
  return equal && left.expert < right.expert;
}

// The first of all lanes' choices, in every lane.
__device__ __forceinline__ Choice WarpFirst(Choice choice) {
#pragma unroll
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    const Choice other = {__shfl_xor_sync(kAllLanes, choice.value, distance),
                          __shfl_xor_sync(kAllLanes, choice.expert, distance)};
    if (Before(other, choice)) {
      choice = other;
    }
  }
  return choice;
}

// A warp is a row; a lane holds every 32nd expert, and crosses out what has been taken.
//
//   grid   ceil(bound / 4) CTAs
//   block  128 threads
//   bytes  4 E read + 8 top_k written a row; bound by latency
template <int kLaneExperts>
__global__ void __launch_bounds__(kRouteThreads)
    RouteKernel(LiveCount rows,
                Rows logits,  // [M, E]
                int top_k, bool renormalize,
                int32_t* __restrict__ experts,  // [M, top_k]
                float* __restrict__ weights) {  // [M, top_k]
  const int row = static_cast<int>(blockIdx.x * kRouteWarps + threadIdx.x / kWarpThreads);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  if (row >= rows.Read()) {
    return;
  }
  const float* const source = logits.At(row);
  float shares[kLaneExperts];
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const int expert = i * kWarpThreads + lane;
    shares[i] = expert < logits.width ? source[expert] : -INFINITY;
    largest = fmaxf(largest, shares[i]);
  }
#pragma unroll
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  float total = 0;
#pragma unroll
  for (int i = 0; i < kLaneExperts; ++i) {
    const bool holds = i * kWarpThreads + lane < logits.width;
    shares[i] = holds ? expf(shares[i] - largest) : 0.0f;
    total += shares[i];
  }
  total = WarpSum(total);
  uint32_t taken = 0;
  float sum = 0;
  float kept[2] = {};  // Weights lane and lane + 32 of the row.
  for (int k = 0; k < top_k; ++k) {
    Choice best = {NAN, logits.width};  // After every expert.
#pragma unroll
    for (int i = 0; i < kLaneExperts; ++i) {
      const Choice choice = {shares[i] / total, i * kWarpThreads + lane};
      if (choice.expert < logits.width && (taken >> i & 1) == 0 && Before(choice, best)) {
        best = choice;
      }
    }
    best = WarpFirst(best);
    if (best.expert % kWarpThreads == lane) {
      taken |= 1u << (best.expert / kWarpThreads);
    }
    if (k % kWarpThreads == lane) {
      experts[static_cast<int64_t>(row) * top_k + k] = best.expert;
      kept[k / kWarpThreads] = best.value;
    }
    sum += best.value;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int k = i * kWarpThreads + lane;
    if (k < top_k) {
      weights[static_cast<int64_t>(row) * top_k + k] = renormalize ? kept[i] / sum : kept[i];
    }
  }
}

// A thread a number; slots are added in order.
//
//   grid   bound x ceil(K / 256) CTAs
//   block  256 threads
//   bytes  4 top_k read + 4 written a number; bound by memory bandwidth
__global__ void __launch_bounds__(kCombineThreads)
    CombineExpertsKernel(LiveCount rows, int top_k,
                         const float* __restrict__ weights,  // [M, top_k]
                         Rows source,                        // [M, top_k, K]
                         Rows target) {                      // [M, K]
  const int row = static_cast<int>(blockIdx.x);
  const int64_t k = static_cast<int64_t>(blockIdx.y) * kCombineThreads + threadIdx.x;
  if (row >= rows.Read() || k >= target.width) {
    return;
  }
  float sum = 0;
  for (int i = 0; i < top_k; ++i) {
    sum = __fmaf_rn(weights[static_cast<int64_t>(row) * top_k + i], source.At(row, i)[k], sum);
  }
  target.At(row)[k] = sum;
}

template <int kLaneExperts>
void Route(const RouteArgs& args, cudaStream_t stream) {
  RouteKernel<kLaneExperts><<<CtasFor(args.rows.bound, kRouteWarps), kRouteThreads, 0, stream>>>(
      LiveCountOf(args.rows), RowsOf(args.logits), static_cast<int>(args.top_k), args.renormalize,
      PointerTo<int32_t>(args.experts), PointerTo<float>(args.weights));
}

}  // namespace

cudaError_t LaunchRoute(const RouteArgs& args, cudaStream_t stream) {
  if (args.logits.width <= 4 * kWarpThreads) {
    Route<4>(args, stream);
  } else if (args.logits.width <= 8 * kWarpThreads) {
    Route<8>(args, stream);
  } else {
    Route<32>(args, stream);
  }
  return cudaGetLastError();
}

cudaError_t LaunchCombineExperts(const CombineExpertsArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned int>(args.rows.bound),
                  CtasFor(args.target.width, kCombineThreads));
  CombineExpertsKernel<<<grid, kCombineThreads, 0, stream>>>(
      LiveCountOf(args.rows), static_cast<int>(args.top_k), PointerTo<const float>(args.weights),
      RowsOf(args.source), RowsOf(args.target));
  return cudaGetLastError();
}

cudaError_t LoadExperts() {
  return Touch(RouteKernel<4>, RouteKernel<8>, RouteKernel<32>, CombineExpertsKernel);
}

}  // namespace nibble
