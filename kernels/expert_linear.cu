// The linear layers of experts. Two kernels, chosen by the shapes and the bound of rows alone.

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/expert_pairs.cuh"
#include "kernels/linear_few.cuh"
#include "kernels/linear_tile.cuh"
#include "kernels/matrix_elements.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

// Each pair reads its expert's matrix.
//
//   grid   ceil(N / 4) x (bound * top_k) CTAs
//   block  128 threads
//   bytes  a matrix a pair; bound by memory bandwidth
template <ElementKind kKind>
__global__ void __launch_bounds__(kFewThreads)
    ExpertPairKernel(Pairs pairs, const __grid_constant__ MatrixForm form,
                     const MatrixPlanes* __restrict__ matrices) {  // [E]
  __shared__ FewShared shared;
  const int64_t pair = blockIdx.y;
  if (pair >= static_cast<int64_t>(pairs.rows.Read()) * pairs.top_k) {
    return;
  }
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kFewColumns;
  float* const target = pairs.TargetOf(pair);
  const int expert = pairs.experts[pair];
  if (expert < 0 || expert >= pairs.expert_count) {
    const int64_t n = first + threadIdx.x;
    if (threadIdx.x < kFewColumns && n < form.rows) {
      target[n] = NAN;
    }
    return;
  }
  const MatrixPlanes planes = matrices[expert];
  const float* const source = pairs.SourceOf(pair);
  const auto source_of = [&](int) { return source; };
  const auto store = [&](int, int64_t n, float sum) { target[n] = sum; };
  if (pairs.IsWide<kKind>(planes)) {
    MultiplyFew<kKind, true, 1>(form, planes, first, 1, source_of, store, shared);
  } else {
    MultiplyFew<kKind, false, 1>(form, planes, first, 1, source_of, store, shared);
  }
}

// A CTA multiplies 128 rows of an expert's matrix with all rows that go to the expert, 64 at a
// time; for each 64 it looks through all pairs, which are few bytes next to the matrix.
//
//   grid   ceil(N / 128) x (E + 1) CTAs
//   block  256 threads
//   bytes  the matrices of the experts that are used, once for 64 rows; bound by FMAs
template <ElementKind kKind>
__global__ void __launch_bounds__(kTileThreads)
    ExpertTileKernel(Pairs pairs, const __grid_constant__ MatrixForm form,
                     const MatrixPlanes* __restrict__ matrices) {  // [E]
  __shared__ __align__(16) TileShared shared;
  const int expert = static_cast<int>(blockIdx.y);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTileColumns;
  const int64_t pair_count = max(0, pairs.rows.Read()) * static_cast<int64_t>(pairs.top_k);
  LoadTable(form, shared.table);
  int count = 1;  // At least one look.
  for (int begin = 0; begin < count; begin += kTileRows) {
    count = CollectPairs<kTileThreads, kTileRows>(pairs, pair_count, expert, begin, shared.sources,
                                                  shared.targets);
    const int row_count = min(count - begin, kTileRows);
    if (row_count <= 0) {
      return;
    }
    __syncthreads();
    if (expert < pairs.expert_count) {
      const MatrixPlanes planes = matrices[expert];
      if (pairs.IsWide<kKind>(planes)) {
        MultiplyTile<kKind, true>(form, planes, WeightElements{}, first, row_count, shared);
      } else {
        MultiplyTile<kKind, false>(form, planes, WeightElements{}, first, row_count, shared);
      }
      continue;
    }
    for (int item = static_cast<int>(threadIdx.x); item < row_count * kTileColumns;
         item += kTileThreads) {
      if (const int64_t n = first + item % kTileColumns; n < form.rows) {
        shared.targets[item / kTileColumns][n] = NAN;
      }
    }
    __syncthreads();
  }
}

template <ElementKind kKind>
void LaunchKind(const ExpertLinearArgs& args, cudaStream_t stream) {
  const Pairs pairs = PairsOf(args);
  const auto* const matrices = PointerTo<const MatrixPlanes>(args.table);
  const int64_t pair_count = args.rows.bound * args.top_k;
  if (args.products.batch_invariant || pair_count < kGroupedRowsMin * args.expert_count) {
    const dim3 grid(CtasFor(args.shape.rows, kFewColumns), static_cast<unsigned int>(pair_count));
    ExpertPairKernel<kKind>
        <<<grid, kFewThreads, 0, stream>>>(pairs, MatrixFormOf(args.shape), matrices);
  } else {
    const dim3 grid(CtasFor(args.shape.rows, kTileColumns),
                    static_cast<unsigned int>(args.expert_count + 1));
    ExpertTileKernel<kKind>
        <<<grid, kTileThreads, 0, stream>>>(pairs, MatrixFormOf(args.shape), matrices);
  }
}

}  // namespace

cudaError_t LaunchExpertLinear(const ExpertLinearArgs& args, cudaStream_t stream) {
  if (args.products.arithmetic == Arithmetic::kBf16 && LaunchExpertLinearMma(args, stream)) {
    return cudaGetLastError();
  }
  switch (ElementKindOf(args.shape.format)) {
    case ElementKind::kF32:
      LaunchKind<ElementKind::kF32>(args, stream);
      break;
    case ElementKind::kF16:
      LaunchKind<ElementKind::kF16>(args, stream);
      break;
    case ElementKind::kBf16:
      LaunchKind<ElementKind::kBf16>(args, stream);
      break;
    case ElementKind::kFourBit:
      LaunchKind<ElementKind::kFourBit>(args, stream);
      break;
  }
  return cudaGetLastError();
}

cudaError_t LoadExpertLinear() {
  return Touch(ExpertPairKernel<ElementKind::kF32>, ExpertPairKernel<ElementKind::kF16>,
               ExpertPairKernel<ElementKind::kBf16>, ExpertPairKernel<ElementKind::kFourBit>,
               ExpertTileKernel<ElementKind::kF32>, ExpertTileKernel<ElementKind::kF16>,
               ExpertTileKernel<ElementKind::kBf16>, ExpertTileKernel<ElementKind::kFourBit>);
}

}  // namespace nibble
