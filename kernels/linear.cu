// Linear layers in fp32, for the check mode and for what the tensor cores' kernels do not take. Two
// kernels, chosen by the bound of rows alone, which is the same whenever a step is replayed; the
// one for few rows, whose sums do not depend on the bound, if products must be batch-invariant.

#include <cuda_runtime.h>

#include "kernels/linear_few.cuh"
#include "kernels/linear_tile.cuh"
#include "kernels/matrix_elements.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

// Up to this many rows the matrix is read again for each eight of them, from the second-level
// cache: eight times the work of one reading, where tiles of 128 rows of the matrix would leave
// most multiprocessors of a large GPU idle. A guess.
constexpr int64_t kFewBoundMax = 64;

//   grid   ceil(N / 4) x ceil(bound / 8) CTAs
//   block  128 threads
//   bytes  the matrix, once for eight rows; bound by memory bandwidth, or with eight rows by FMAs
template <ElementKind kKind, bool kWide, int kRows>
__global__ void __launch_bounds__(kFewThreads)
    LinearFewKernel(LiveCount rows, const __grid_constant__ MatrixForm form,
                    MatrixPlanes planes,  // [N, K]
                    WeightElements bias,  // [N]
                    Rows source,          // [M, K]
                    Rows target) {        // [M, N]
  __shared__ FewShared shared;
  const int begin = static_cast<int>(blockIdx.y) * kRows;
  const int row_count = min(rows.Read() - begin, kRows);
  if (row_count <= 0) {
    return;
  }
  MultiplyFew<kKind, kWide, kRows>(
      form, planes, static_cast<int64_t>(blockIdx.x) * kFewColumns, row_count,
      [&](int m) { return source.At(begin + m); },
      [&](int m, int64_t n, float sum) {
        target.At(begin + m)[n] = sum + (bias.data == nullptr ? 0.0f : bias.At(n));
      },
      shared);
}

//   grid   ceil(N / 128) x ceil(bound / 64) CTAs
//   block  256 threads
//   bytes  the matrix once for 64 rows; bound by FMAs
template <ElementKind kKind, bool kWide>
__global__ void __launch_bounds__(kTileThreads)
    LinearTileKernel(LiveCount rows, const __grid_constant__ MatrixForm form,
                     MatrixPlanes planes,  // [N, K]
                     WeightElements bias,  // [N]
                     Rows source,          // [M, K]
                     Rows target) {        // [M, N]
  __shared__ __align__(16) TileShared shared;
  const int begin = static_cast<int>(blockIdx.y) * kTileRows;
  const int row_count = min(rows.Read() - begin, kTileRows);
  if (row_count <= 0) {
    return;
  }
  const int m = static_cast<int>(threadIdx.x);
  if (m < row_count) {
    shared.sources[m] = source.At(begin + m);
    shared.targets[m] = target.At(begin + m);
  }
  LoadTable(form, shared.table);
  __syncthreads();
  MultiplyTile<kKind, kWide>(form, planes, bias, static_cast<int64_t>(blockIdx.x) * kTileColumns,
                             row_count, shared);
}

template <ElementKind kKind, bool kWide, int kRows>
void LaunchFew(const LinearArgs& args, cudaStream_t stream) {
  const dim3 grid(CtasFor(args.weight.shape.rows, kFewColumns), CtasFor(args.rows.bound, kRows));
  LinearFewKernel<kKind, kWide, kRows><<<grid, kFewThreads, 0, stream>>>(
      LiveCountOf(args.rows), MatrixFormOf(args.weight.shape), args.weight.planes,
      WeightElementsOf(args.bias), RowsOf(args.source), RowsOf(args.target));
}

template <ElementKind kKind, bool kWide>
void LaunchTiles(const LinearArgs& args, cudaStream_t stream) {
  const dim3 grid(CtasFor(args.weight.shape.rows, kTileColumns),
                  CtasFor(args.rows.bound, kTileRows));
  LinearTileKernel<kKind, kWide><<<grid, kTileThreads, 0, stream>>>(
      LiveCountOf(args.rows), MatrixFormOf(args.weight.shape), args.weight.planes,
      WeightElementsOf(args.bias), RowsOf(args.source), RowsOf(args.target));
}

template <ElementKind kKind, bool kWide>
void LaunchByBound(const LinearArgs& args, cudaStream_t stream) {
  if (args.rows.bound > kFewBoundMax && !args.products.batch_invariant) {
    LaunchTiles<kKind, kWide>(args, stream);
  } else if (args.rows.bound == 1) {
    LaunchFew<kKind, kWide, 1>(args, stream);
  } else if (args.rows.bound <= 4) {
    LaunchFew<kKind, kWide, 4>(args, stream);
  } else {
    LaunchFew<kKind, kWide, kFewRowsMax>(args, stream);
  }
}

template <ElementKind kKind>
void LaunchByWidth(const LinearArgs& args, cudaStream_t stream) {
  const bool wide = HasWideRows(args.weight.shape, args.weight.planes.data) &&
                    IsAligned(args.source.span.address(), 16) && args.source.row_stride % 4 == 0;
  if (wide) {
    LaunchByBound<kKind, true>(args, stream);
  } else {
    LaunchByBound<kKind, false>(args, stream);
  }
}

template <ElementKind kKind>
cudaError_t LoadKind() {
  return Touch(LinearFewKernel<kKind, true, 1>, LinearFewKernel<kKind, false, 1>,
               LinearFewKernel<kKind, true, 4>, LinearFewKernel<kKind, false, 4>,
               LinearFewKernel<kKind, true, kFewRowsMax>,
               LinearFewKernel<kKind, false, kFewRowsMax>, LinearTileKernel<kKind, true>,
               LinearTileKernel<kKind, false>);
}

}  // namespace

cudaError_t LaunchLinear(const LinearArgs& args, cudaStream_t stream) {
  if (LaunchLinearMma({&args, 1}, stream)) {
    return cudaGetLastError();
  }
  switch (ElementKindOf(args.weight.shape.format)) {
    case ElementKind::kF32:
      LaunchByWidth<ElementKind::kF32>(args, stream);
      break;
    case ElementKind::kF16:
      LaunchByWidth<ElementKind::kF16>(args, stream);
      break;
    case ElementKind::kBf16:
      LaunchByWidth<ElementKind::kBf16>(args, stream);
      break;
    case ElementKind::kFourBit:
      LaunchByWidth<ElementKind::kFourBit>(args, stream);
      break;
  }
  return cudaGetLastError();
}

cudaError_t LaunchLinearSet(std::span<const LinearArgs> set, cudaStream_t stream) {
  if (set.size() <= kLinearSetMax && LaunchLinearMma(set, stream)) {
    return cudaGetLastError();
  }
  for (const LinearArgs& args : set) {
    if (const cudaError_t error = LaunchLinear(args, stream); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

cudaError_t LoadLinear() {
  for (const auto load : {LoadKind<ElementKind::kF32>, LoadKind<ElementKind::kF16>,
                          LoadKind<ElementKind::kBf16>, LoadKind<ElementKind::kFourBit>}) {
    if (const cudaError_t error = load(); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
