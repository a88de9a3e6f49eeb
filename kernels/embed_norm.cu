// The ends of a layer: rows of the embedding table, and norms.

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/early_launch.cuh"
#include "kernels/matrix_elements.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr int kEmbedThreads = 256;
constexpr int kNormThreadsMax = 512;

// A thread an element, whatever the table's alignment: a step reads M rows of V.
//
//   grid   bound x ceil(K / 256) CTAs
//   block  256 threads
//   bytes  an element read + 4 written a number; bound by latency
template <ElementKind kKind>
__global__ void __launch_bounds__(kEmbedThreads)
    EmbedKernel(LiveCount rows, const __grid_constant__ MatrixForm form, MatrixPlanes planes,
                const int32_t* __restrict__ ids,  // [M]
                float scale,
                Rows target) {  // [M, K]
  __shared__ float table[kCodeValues];
  LoadTable(form, table);
  LetNextBegin();
  WaitForPrevious();
  __syncthreads();
  const int row = static_cast<int>(blockIdx.x);
  const int64_t k = static_cast<int64_t>(blockIdx.y) * kEmbedThreads + threadIdx.x;
  if (row >= rows.Read() || k >= form.columns) {
    return;
  }
  const int64_t id = ids[row];
  target.At(row)[k] =
      id < 0 || id >= form.rows
          ? NAN
          : MatrixElement<kKind>(form, planes, table, id * form.columns + k) * scale;
}

// The sum of a CTA's values in every thread: lanes, then warps, in one order.
__device__ float CtaSum(float value, float* warps) {  // [32]
  value = WarpSum(value);
  __syncthreads();  // The sums of the last call have been read.
  if (threadIdx.x % kWarpThreads == 0) {
    warps[threadIdx.x / kWarpThreads] = value;
  }
  __syncthreads();
  float sum = 0;
  for (unsigned int warp = 0; warp < blockDim.x / kWarpThreads; ++warp) {
    sum += warps[warp];
  }
  return sum;
}

// A CTA normalizes one group. Its size depends on the width alone, and so does the order of sums.
//
//   grid   bound x groups CTAs
//   block  32 to 512 threads, at least 4 numbers each
//   bytes  4 read + 4 written a number, the rest from the cache; bound by latency
__global__ void __launch_bounds__(kNormThreadsMax)
    NormKernel(LiveCount rows, NormKind kind, float epsilon,
               WeightElements weights,  // [width], or [groups, width] if not shared
               bool shared_weights,
               Rows source,    // [M, groups, width]
               Rows target) {  // [M, groups, width]
  __shared__ float warps[kWarpThreads];
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  const int group = static_cast<int>(blockIdx.y);
  if (row >= rows.Read()) {
    return;
  }
  const float* const x = source.At(row, group);
  const int width = source.width;
  const int first = static_cast<int>(threadIdx.x);
  const int step = static_cast<int>(blockDim.x);
  float mean = 0;
  if (kind == NormKind::kLayer) {
    float sum = 0;
    for (int i = first; i < width; i += step) {
      sum += x[i];
    }
    mean = CtaSum(sum, warps) / static_cast<float>(width);
  }
  float squares = 0;
  for (int i = first; i < width; i += step) {
    const float distance = x[i] - mean;
    squares += distance * distance;
  }
  const float variance = CtaSum(squares, warps) / static_cast<float>(width);
  const float factor = 1 / sqrtf(variance + epsilon);
  const float offset = kind == NormKind::kZeroCentredRms ? 1.0f : 0.0f;
  const int64_t first_weight = shared_weights ? 0 : static_cast<int64_t>(group) * width;
  float* const y = target.At(row, group);
  for (int i = first; i < width; i += step) {
    y[i] = (x[i] - mean) * factor * (offset + weights.At(first_weight + i));
  }
}

template <ElementKind kKind>
void Embed(const EmbedArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned int>(args.rows.bound),
                  CtasFor(args.table.shape.columns, kEmbedThreads));
  (void)LaunchEarly(CurrentDeviceShape(), EmbedKernel<kKind>, grid, kEmbedThreads, 0, stream,
                    LiveCountOf(args.rows), MatrixFormOf(args.table.shape), args.table.planes,
                    PointerTo<const int32_t>(args.ids), args.scale, RowsOf(args.target));
}

}  // namespace

cudaError_t LaunchEmbed(const EmbedArgs& args, cudaStream_t stream) {
  switch (ElementKindOf(args.table.shape.format)) {
    case ElementKind::kF32:
      Embed<ElementKind::kF32>(args, stream);
      break;
    case ElementKind::kF16:
      Embed<ElementKind::kF16>(args, stream);
      break;
    case ElementKind::kBf16:
      Embed<ElementKind::kBf16>(args, stream);
      break;
    case ElementKind::kFourBit:
      Embed<ElementKind::kFourBit>(args, stream);
      break;
  }
  return cudaGetLastError();
}

cudaError_t LaunchNorm(const NormArgs& args, cudaStream_t stream) {
  if (LaunchWideNorm({}, args, stream)) {
    return cudaGetLastError();
  }
  const int64_t width = args.source.width;
  const bool shared = args.weight.span.bytes() == width * BytesPerElement(args.weight.type);
  const int64_t threads = std::clamp<int64_t>(RoundUp(CeilDivide(width, 4), kWarpThreads),
                                              kWarpThreads, kNormThreadsMax);
  const dim3 grid(static_cast<unsigned int>(args.rows.bound),
                  static_cast<unsigned int>(args.source.groups));
  return LaunchEarly(CurrentDeviceShape(), NormKernel, grid, static_cast<int>(threads), 0, stream,
                     LiveCountOf(args.rows), args.kind, args.epsilon, WeightElementsOf(args.weight),
                     shared, RowsOf(args.source), RowsOf(args.target));
}

cudaError_t LoadEmbedNorm() {
  return Touch(EmbedKernel<ElementKind::kF32>, EmbedKernel<ElementKind::kF16>,
               EmbedKernel<ElementKind::kBf16>, EmbedKernel<ElementKind::kFourBit>, NormKernel);
}

}  // namespace nibble
