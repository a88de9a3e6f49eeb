// Linear layers on tensor cores: both factors are rounded to bf16, sums are fp32. Two kernels,
// chosen by shapes, alignment and the bound of rows.

#include <cuda_runtime.h>

#include "kernels/linear_few_mma.cuh"
#include "kernels/linear_tile_mma.cuh"
#include "kernels/step_kernels.h"

namespace nibble {
namespace {

extern __shared__ __align__(128) char dynamic_shared[];

struct LinearMma {
  LiveCount rows;
  WeightElements bias;  // [N]
  Rows source;          // [M, K]
  Rows target;          // [M, N]
};

//   grid   as many CTAs as multiprocessors, at most a tile of 16 rows each; x ceil(bound / 8)
//   block  512 threads
//   bytes  the matrix, once for eight rows; bound by memory bandwidth
template <ElementKind kKind>
__global__ void __launch_bounds__(kFewMmaThreads, 1)
    LinearFewMmaKernel(LinearMma args, const __grid_constant__ MatrixForm form,
                       const __grid_constant__ MatrixPlanes planes,  // [N, K]
                       const __grid_constant__ FewMmaPlan plan) {
  const int begin = static_cast<int>(blockIdx.y) * kMmaColumns;
  const int64_t tiles = (form.rows + kUnitRows - 1) / kUnitRows;
  const int64_t tile_begin = tiles * blockIdx.x / gridDim.x;
  const int64_t tile_end = tiles * (blockIdx.x + 1) / gridDim.x;
  MultiplyFewMma<kKind>(
      form, planes, plan, tile_begin, tile_end,
      [&] { return min(args.rows.Read() - begin, kMmaColumns); },
      [&](int m) { return args.source.At(begin + m); },
      [&](int m, int64_t n, float sum, bool is_first) {
        float* const place = args.target.At(begin + m) + n;
        *place = sum + (!is_first ? *place : args.bias.data == nullptr ? 0.0f : args.bias.At(n));
      },
      dynamic_shared);
}

// CTAs that run at the same time share tiles of the matrix, so that it comes from memory once.
//
//   grid   ceil(bound / rows of activations) x ceil(N / rows of a tile) x CTAs of a cluster, which
//          share the columns
//   block  256 threads
//   bytes  the matrix once for up to 64 rows, the activations once for each tile; bound by memory
//          bandwidth up to about 64 rows, then by shared memory
template <ElementKind kKind, int kUnits, int kGroups>
__global__ void __launch_bounds__(kTileMmaThreads, TileMmaForm<kKind, kUnits, kGroups>::kCtas)
    LinearTileMmaKernel(LinearMma args, const __grid_constant__ MatrixForm form,
                        const __grid_constant__ MatrixPlanes planes) {  // [N, K]
  using Form = TileMmaForm<kKind, kUnits, kGroups>;
  const TileMmaPlaces places = TileMmaPlacesIn<Form, kKind>(dynamic_shared);
  if constexpr (kKind == ElementKind::kFourBit) {
    LoadPairTable(form, places.table);
  }
  LetNextBegin();
  WaitForPrevious();
  const int begin = static_cast<int>(blockIdx.x) * Form::kRows;
  const int row_count = min(args.rows.Read() - begin, Form::kRows);
  if (row_count <= 0) {
    return;
  }
  const int64_t first = static_cast<int64_t>(blockIdx.y) * Form::kMatrixRows;
  const int chunks =
      static_cast<int>((form.columns + kUnitColumns<kKind> - 1) / kUnitColumns<kKind>);
  float sums[kUnits][kGroups][4] = {};
  MultiplyTileMma<kKind, kUnits, kGroups>(
      form, planes, first, static_cast<int>(chunks * blockIdx.z / gridDim.z),
      static_cast<int>(chunks * (blockIdx.z + 1) / gridDim.z),
      [&](int m) { return m < row_count ? args.source.At(begin + m) : nullptr; }, places, sums);
  const auto store = [&](int m, int n, float sum) {
    if (m < row_count && first + n < form.rows) {
      args.target.At(begin + m)[first + n] =
          sum + (args.bias.data == nullptr ? 0.0f : args.bias.At(first + n));
    }
  };
  if (gridDim.z == 1) {
    ForEachSum(sums, store);
    return;
  }
  __syncthreads();
  AddOverCluster<Form>(sums, row_count, reinterpret_cast<float*>(places.rings), store);
}

LinearMma LinearMmaOf(const LinearArgs& args) {
  return {LiveCountOf(args.rows), WeightElementsOf(args.bias), RowsOf(args.source),
          RowsOf(args.target)};
}

template <ElementKind kKind>
bool LaunchFew(const LinearArgs& args, const MmaDevice& device, cudaStream_t stream) {
  const bool splits_rows = args.rows.bound > kMmaColumns || args.products.batch_invariant;
  const FewMmaPlan plan =
      FewMmaPlanOf<kKind>(args.weight.shape, splits_rows ? kMmaColumns : args.rows.bound, device);
  if (plan.shared_bytes > device.shared_bytes) {
    return false;
  }
  const int64_t rounds =
      CeilDivide(args.weight.shape.rows, static_cast<int64_t>(kUnitRows) * plan.round_tiles);
  const dim3 grid(static_cast<unsigned int>(std::min<int64_t>(rounds, device.processors)),
                  CtasFor(args.rows.bound, kMmaColumns));
  (void)LaunchEarly(device, LinearFewMmaKernel<kKind>, grid, kFewMmaThreads, plan.shared_bytes,
                    stream, LinearMmaOf(args), MatrixFormOf(args.weight.shape), args.weight.planes,
                    plan);
  return true;
}

// CTAs that share the columns of a tile: as many as keep all multiprocessors at work, if each has
// four chunks at least.
int SplitsFor(int64_t ctas, int64_t chunks, const MmaDevice& device) {
  int splits = 1;
  while (device.capability >= 9 && splits < kTileMmaSplitsMax &&
         2 * splits * ctas <= device.processors && chunks >= 8 * splits) {
    splits *= 2;
  }
  return splits;
}

template <ElementKind kKind, int kUnits, int kGroups>
bool LaunchTile(const LinearArgs& args, const MmaDevice& device, cudaStream_t stream) {
  using Form = TileMmaForm<kKind, kUnits, kGroups>;
  if (Form::kSharedBytes > device.shared_bytes) {
    return false;
  }
  const MatrixShape& shape = args.weight.shape;
  const unsigned int tiles = CtasFor(shape.rows, Form::kMatrixRows);
  const unsigned int groups = CtasFor(args.rows.bound, Form::kRows);
  const int64_t chunks = CeilDivide(shape.columns, int64_t{kUnitColumns<kKind>});
  const auto splits =
      static_cast<unsigned int>(SplitsFor(static_cast<int64_t>(tiles) * groups, chunks, device));
  (void)LaunchEarly(device, LinearTileMmaKernel<kKind, kUnits, kGroups>,
                    dim3(groups, tiles, splits), kTileMmaThreads, Form::kSharedBytes, stream,
                    LinearMmaOf(args), MatrixFormOf(shape), args.weight.planes);
  return true;
}

// Matrices in 16 bits, which are few in a model, have fewer kernels.
template <ElementKind kKind>
bool LaunchKind(const LinearArgs& args, cudaStream_t stream) {
  const MmaDevice device = CurrentMmaDevice();
  const int64_t bound = args.rows.bound;
  if (bound <= kMmaColumns || args.products.batch_invariant) {
    return LaunchFew<kKind>(args, device, stream);
  }
  if constexpr (kKind == ElementKind::kFourBit) {
    if (bound <= 16) {
      return LaunchTile<kKind, 1, 2>(args, device, stream);
    }
    // Tiles of 256 rows read activations half as often, but a small matrix has too few of them.
    const int64_t chunks = CeilDivide(args.weight.shape.columns, int64_t{kUnitColumns<kKind>});
    const int64_t large_tiles = CeilDivide(args.weight.shape.rows, 256) * CeilDivide(bound, 64);
    const bool is_large =
        large_tiles * SplitsFor(large_tiles, chunks, device) * 2 > device.processors;
    if (bound <= 32) {
      return is_large ? LaunchTile<kKind, 2, 4>(args, device, stream)
                      : LaunchTile<kKind, 1, 4>(args, device, stream);
    }
    if (is_large) {
      return LaunchTile<kKind, 2, 8>(args, device, stream);
    }
  }
  return LaunchTile<kKind, 1, 8>(args, device, stream);
}

template <ElementKind kKind>
cudaError_t LoadKind() {
  cudaError_t error = TouchLarge(LinearFewMmaKernel<kKind>);
  error = error == cudaSuccess ? TouchLarge(LinearTileMmaKernel<kKind, 1, 8>) : error;
  if constexpr (kKind == ElementKind::kFourBit) {
    for (const auto kernel : {LinearTileMmaKernel<kKind, 1, 2>, LinearTileMmaKernel<kKind, 1, 4>,
                              LinearTileMmaKernel<kKind, 2, 4>, LinearTileMmaKernel<kKind, 2, 8>}) {
      error = error == cudaSuccess ? TouchLarge(kernel) : error;
    }
  }
  return error;
}

}  // namespace

bool LaunchLinearMma(const LinearArgs& args, cudaStream_t stream) {
  const MatrixShape& shape = args.weight.shape;
  if (!HasMmaShape(shape) || !IsAligned(args.weight.planes.data, kMmaAlignment) ||
      !HasWideActivations(args.source)) {
    return false;
  }
  switch (ElementKindOf(shape.format)) {
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

cudaError_t LoadLinearMma() {
  for (const auto load : {LoadKind<ElementKind::kF16>, LoadKind<ElementKind::kBf16>,
                          LoadKind<ElementKind::kFourBit>}) {
    if (const cudaError_t error = load(); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
