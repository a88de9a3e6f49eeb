// The linear layers of experts on tensor cores. Two kernels, chosen by the shapes and the bound of
// rows.

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/expert_pairs.cuh"
#include "kernels/linear_few_mma.cuh"
#include "kernels/linear_tile_mma.cuh"
#include "kernels/step_kernels.h"

namespace nibble {
namespace {

extern __shared__ __align__(128) char dynamic_shared[];

constexpr int kExpertGroups = 4;  // Of eight rows that go to the same expert.

// The device alone knows where an expert's matrix lies. One that cannot be read 16 bytes at once is
// multiplied number by number: slow, but only a checkpoint's own odd layout has it.
template <ElementKind kKind>
__device__ void MultiplyUnaligned(const MatrixForm& form, const MatrixPlanes& planes, int64_t first,
                                  int64_t end, const float* source, float* target) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warps = static_cast<int>(blockDim.x) / kWarpThreads;
  for (int64_t n = first + threadIdx.x / kWarpThreads; n < end; n += warps) {
    float sum = 0;
    for (int64_t k = lane; k < form.columns; k += kWarpThreads) {
      const float weight =
          MatrixElement<kKind>(form, planes, form.table.values, n * form.columns + k);
      sum = __fmaf_rn(source[k], weight, sum);
    }
    sum = WarpSum(sum);
    if (lane == 0) {
      target[n] = sum;
    }
  }
}

// Each pair reads its expert's matrix.
//
//   grid   CTAs of a pair x (bound * top_k)
//   block  512 threads
//   bytes  a matrix a pair; bound by memory bandwidth
template <ElementKind kKind>
__global__ void __launch_bounds__(kFewMmaThreads, 1)
    ExpertPairMmaKernel(Pairs pairs, const __grid_constant__ MatrixForm form,
                        const __grid_constant__ FewMmaPlan plan,
                        const MatrixPlanes* __restrict__ matrices) {  // [E]
  LetNextBegin();
  WaitForPrevious();
  const int64_t pair = blockIdx.y;
  if (pair >= static_cast<int64_t>(pairs.rows.Read()) * pairs.top_k) {
    return;
  }
  const int64_t tiles = (form.rows + kUnitRows - 1) / kUnitRows;
  const int64_t tile_begin = tiles * blockIdx.x / gridDim.x;
  const int64_t tile_end = tiles * (blockIdx.x + 1) / gridDim.x;
  const int64_t row_end = min(tile_end * kUnitRows, form.rows);
  float* const target = pairs.TargetOf(pair);
  const int expert = pairs.experts[pair];
  if (expert < 0 || expert >= pairs.expert_count) {
    for (int64_t n = tile_begin * kUnitRows + threadIdx.x; n < row_end; n += kFewMmaThreads) {
      target[n] = NAN;
    }
    return;
  }
  const MatrixPlanes planes = matrices[expert];
  const float* const source = pairs.SourceOf(pair);
  if (planes.data % kMmaAlignment != 0) {
    MultiplyUnaligned<kKind>(form, planes, tile_begin * kUnitRows, row_end, source, target);
    return;
  }
  MultiplyFewMma<kKind, PairTable::kDense>(
      form, form.table, planes, plan, tile_begin, tile_end, [] { return 1; },
      [&](int) { return source; },
      [&](int, int64_t n, float sum, bool is_first) {
        target[n] = is_first ? sum : target[n] + sum;
      },
      dynamic_shared);
}

// A CTA multiplies 128 rows of an expert's matrix with all rows that go to the expert, 32 at a
// time.
//
//   grid   ceil(N / 128) x (E + 1) CTAs
//   block  256 threads
//   bytes  the matrices of the experts that are used, once for 32 rows; bound by memory bandwidth
template <ElementKind kKind>
__global__ void __launch_bounds__(kTileMmaThreads, TileMmaForm<kKind, 1, kExpertGroups>::kCtas)
    ExpertTileMmaKernel(Pairs pairs, const __grid_constant__ MatrixForm form,
                        const MatrixPlanes* __restrict__ matrices) {  // [E]
  using Form = TileMmaForm<kKind, 1, kExpertGroups>;
  LetNextBegin();
  WaitForPrevious();
  __shared__ const float* sources[Form::kRows];
  __shared__ float* targets[Form::kRows];
  const int expert = static_cast<int>(blockIdx.y);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * Form::kMatrixRows;
  const int64_t row_end = min(first + Form::kMatrixRows, form.rows);
  const int64_t pair_count = max(0, pairs.rows.Read()) * static_cast<int64_t>(pairs.top_k);
  const TileMmaPlaces places = TileMmaPlacesIn<Form, kKind>(dynamic_shared);
  const int chunks =
      static_cast<int>((form.columns + kUnitColumns<kKind> - 1) / kUnitColumns<kKind>);
  int count = 1;  // At least one look.
  for (int begin = 0; begin < count; begin += Form::kRows) {
    count = CollectPairs<kTileMmaThreads, Form::kRows>(pairs, pair_count, expert, begin, sources,
                                                       targets);
    const int row_count = min(count - begin, Form::kRows);
    if (row_count <= 0) {
      return;
    }
    if constexpr (kKind == ElementKind::kFourBit) {
      if (begin == 0) {
        LoadPairTable(form.table, places.table);
      }
    }
    __syncthreads();
    if (expert == pairs.expert_count) {
      for (int m = 0; m < row_count; ++m) {
        for (int64_t n = first + threadIdx.x; n < row_end; n += kTileMmaThreads) {
          targets[m][n] = NAN;
        }
      }
    } else if (const MatrixPlanes planes = matrices[expert]; planes.data % kMmaAlignment != 0) {
      for (int m = 0; m < row_count; ++m) {
        MultiplyUnaligned<kKind>(form, planes, first, row_end, sources[m], targets[m]);
      }
    } else {
      float sums[1][kExpertGroups][4] = {};
      MultiplyTileMma<kKind, 1, kExpertGroups>(
          form, planes, first, 0, chunks,
          [&](int m) { return m < row_count ? sources[m] : nullptr; }, places, sums);
      ForEachSum(sums, [&](int m, int n, float sum) {
        if (m < row_count && first + n < row_end) {
          targets[m][first + n] = sum;
        }
      });
    }
    __syncthreads();  // Rows, rings and activations may be written again.
  }
}

template <ElementKind kKind>
bool LaunchPairs(const ExpertLinearArgs& args, const DeviceShape& device, cudaStream_t stream) {
  const FewMmaPlan plan = FewMmaPlanOf<kKind>(args.shape, 1, device);
  if (plan.shared_bytes > device.shared_bytes) {
    return false;
  }
  const int64_t pair_count = args.rows.bound * args.top_k;
  const int64_t rounds =
      CeilDivide(args.shape.rows, static_cast<int64_t>(kUnitRows) * plan.round_tiles);
  const int64_t ctas = std::clamp<int64_t>(CeilDivide(device.processors, pair_count), 1, rounds);
  const dim3 grid(static_cast<unsigned int>(ctas), static_cast<unsigned int>(pair_count));
  (void)LaunchEarly(device, ExpertPairMmaKernel<kKind>, grid, kFewMmaThreads, plan.shared_bytes,
                    stream, PairsOf(args), MatrixFormOf(args.shape), plan,
                    PointerTo<const MatrixPlanes>(args.table));
  return true;
}

template <ElementKind kKind>
bool LaunchTiles(const ExpertLinearArgs& args, const DeviceShape& device, cudaStream_t stream) {
  using Form = TileMmaForm<kKind, 1, kExpertGroups>;
  if (Form::kSharedBytes > device.shared_bytes) {
    return false;
  }
  const dim3 grid(CtasFor(args.shape.rows, Form::kMatrixRows),
                  static_cast<unsigned int>(args.expert_count + 1));
  (void)LaunchEarly(device, ExpertTileMmaKernel<kKind>, grid, kTileMmaThreads, Form::kSharedBytes,
                    stream, PairsOf(args), MatrixFormOf(args.shape),
                    PointerTo<const MatrixPlanes>(args.table));
  return true;
}

template <ElementKind kKind>
bool LaunchKind(const ExpertLinearArgs& args, cudaStream_t stream) {
  const DeviceShape device = CurrentDeviceShape();
  const bool has_many = args.rows.bound * args.top_k >= kGroupedRowsMin * args.expert_count;
  return has_many && !args.products.batch_invariant ? LaunchTiles<kKind>(args, device, stream)
                                                    : LaunchPairs<kKind>(args, device, stream);
}

template <ElementKind kKind>
cudaError_t LoadKind() {
  const cudaError_t error = TouchLarge(ExpertPairMmaKernel<kKind>);
  return error == cudaSuccess ? TouchLarge(ExpertTileMmaKernel<kKind>) : error;
}

}  // namespace

bool LaunchExpertLinearMma(const ExpertLinearArgs& args, cudaStream_t stream) {
  if (!HasMmaShape(args.shape) || !HasWideActivations(args.source)) {
    return false;
  }
  switch (ElementKindOf(args.shape.format)) {
    case ElementKind::kF32:
      return false;
    case ElementKind::kF16:
      return LaunchKind<ElementKind::kF16>(args, stream);
    case ElementKind::kBf16:
      return LaunchKind<ElementKind::kBf16>(args, stream);
    case ElementKind::kFourBit:
      return LaunchKind<ElementKind::kFourBit>(args, stream);
  }
  return false;
}

cudaError_t LoadExpertLinearMma() {
  for (const auto load : {LoadKind<ElementKind::kF16>, LoadKind<ElementKind::kBf16>,
                          LoadKind<ElementKind::kFourBit>}) {
    if (const cudaError_t error = load(); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
