// Linear layers on tensor cores: both factors are rounded to bf16, sums are fp32. Two kernels,
// chosen by shapes, alignment and the bound of rows.

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <climits>
#include <numeric>
#include <span>

#include "kernels/linear_few_mma.cuh"
#include "kernels/linear_tile_mma.cuh"
#include "kernels/step_kernels.h"

namespace nibble {
namespace {

extern __shared__ __align__(128) char dynamic_shared[];

// One of the products of a launch.
struct MmaProduct {
  MatrixPlanes planes;  // [N, K]
  int64_t rows;         // N
  WeightElements bias;  // [N]
  Rows target;          // [M, N]
  int begin;            // First CTA, or tile, of the product.
};

// Products of the same rows with several matrices, which differ in N alone.
struct MmaProducts {
  LiveCount rows;
  Rows source;      // [M, K]
  MatrixForm form;  // Its rows are those of the first.
  int end;          // Behind the last product's CTAs, or tiles.
  MmaProduct products[kLinearSetMax];

  __device__ __forceinline__ int IndexAt(int place) const {
    int index = 0;
#pragma unroll
    for (int next = 1; next < kLinearSetMax; ++next) {
      index = place >= products[next].begin ? next : index;
    }
    return index;
  }
  __device__ __forceinline__ int EndOf(int index) const {
    return index + 1 < kLinearSetMax ? min(products[index + 1].begin, end) : end;
  }
  // In registers, and without codes.
  __device__ __forceinline__ MatrixForm FormOf(int index) const {
    return {form.columns, products[index].rows, form.block_shift, form.double_quantized, {}};
  }
};

//   grid   as many CTAs as multiprocessors, at most a tile of 16 rows each; x ceil(bound / 8)
//   block  512 threads
//   bytes  the matrices, once for eight rows; bound by memory bandwidth
template <ElementKind kKind, PairTable kTable>
__global__ void __launch_bounds__(kFewMmaThreads, 1)
    LinearFewMmaKernel(const __grid_constant__ MmaProducts all,
                       const __grid_constant__ FewMmaPlan plan) {
  const int index = all.IndexAt(static_cast<int>(blockIdx.x));
  const MmaProduct& product = all.products[index];
  const MatrixForm form = all.FormOf(index);
  const MatrixPlanes planes = product.planes;
  const int begin = static_cast<int>(blockIdx.y) * kMmaColumns;
  const int64_t tiles = (form.rows + kUnitRows - 1) / kUnitRows;
  const int ctas = all.EndOf(index) - product.begin;
  const int cta = static_cast<int>(blockIdx.x) - product.begin;
  MultiplyFewMma<kKind, kTable>(
      form, all.form.table, planes, plan, tiles * cta / ctas, tiles * (cta + 1) / ctas,
      [&] { return min(all.rows.Read() - begin, kMmaColumns); },
      [&](int m) { return all.source.At(begin + m); },
      [&](int m, int64_t n, float sum, bool is_first) {
        const WeightElements& bias = product.bias;
        float* const place = product.target.At(begin + m) + n;
        *place = sum + (!is_first ? *place : bias.data == nullptr ? 0.0f : bias.At(n));
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
    LinearTileMmaKernel(const __grid_constant__ MmaProducts all) {
  using Form = TileMmaForm<kKind, kUnits, kGroups>;
  const TileMmaPlaces places = TileMmaPlacesIn<Form, kKind>(dynamic_shared);
  if constexpr (kKind == ElementKind::kFourBit) {
    LoadPairTable(all.form.table, places.table);
  }
  LetNextBegin();
  WaitForPrevious();
  const int begin = static_cast<int>(blockIdx.x) * Form::kRows;
  const int row_count = min(all.rows.Read() - begin, Form::kRows);
  if (row_count <= 0) {
    return;
  }
  const int index = all.IndexAt(static_cast<int>(blockIdx.y));
  const MmaProduct& product = all.products[index];
  const MatrixForm form = all.FormOf(index);
  const MatrixPlanes planes = product.planes;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) - product.begin) * Form::kMatrixRows;
  const int chunks =
      static_cast<int>((form.columns + kUnitColumns<kKind> - 1) / kUnitColumns<kKind>);
  float sums[kUnits][kGroups][4] = {};
  MultiplyTileMma<kKind, kUnits, kGroups>(
      form, planes, first, static_cast<int>(chunks * blockIdx.z / gridDim.z),
      static_cast<int>(chunks * (blockIdx.z + 1) / gridDim.z),
      [&](int m) { return m < row_count ? all.source.At(begin + m) : nullptr; }, places, sums);
  const auto store = [&](int m, int n, float sum) {
    if (m < row_count && first + n < form.rows) {
      const WeightElements& bias = product.bias;
      product.target.At(begin + m)[first + n] =
          sum + (bias.data == nullptr ? 0.0f : bias.At(first + n));
    }
  };
  if (gridDim.z == 1) {
    ForEachSum(sums, store);
    return;
  }
  __syncthreads();
  AddOverCluster<Form>(sums, row_count, reinterpret_cast<float*>(places.rings), store);
}

using LinearSet = std::span<const LinearArgs>;

// `counts` are the CTAs, or tiles, of each product.
MmaProducts MmaProductsOf(LinearSet set, const std::array<int64_t, kLinearSetMax>& counts) {
  const LinearArgs& first = set.front();
  MmaProducts all = {};
  all.rows = LiveCountOf(first.rows);
  all.source = RowsOf(first.source);
  all.form = MatrixFormOf(first.weight.shape);
  for (size_t index = 0; index < kLinearSetMax; ++index) {
    MmaProduct& product = all.products[index];
    product.begin = INT_MAX;
    if (index < set.size()) {
      const LinearArgs& args = set[index];
      product = {args.weight.planes, args.weight.shape.rows, WeightElementsOf(args.bias),
                 RowsOf(args.target), all.end};
      all.end += static_cast<int>(counts[index]);
    }
  }
  return all;
}

// CTAs for each product of a set: for each as many as it has rounds, or shares of all that run at
// once by the number of rounds, at least one.
std::array<int64_t, kLinearSetMax> CtasForFew(LinearSet set, int64_t round_rows, int64_t ctas) {
  std::array<int64_t, kLinearSetMax> rounds = {};
  int64_t total = 0;
  size_t largest = 0;
  for (size_t index = 0; index < set.size(); ++index) {
    rounds[index] = CeilDivide(set[index].weight.shape.rows, round_rows);
    total += rounds[index];
    largest = rounds[index] > rounds[largest] ? index : largest;
  }
  if (total <= ctas) {
    return rounds;
  }
  std::array<int64_t, kLinearSetMax> shares = {};
  int64_t others = 0;
  for (size_t index = 0; index < set.size(); ++index) {
    if (index != largest) {
      shares[index] = std::max<int64_t>(ctas * rounds[index] / total, 1);
      others += shares[index];
    }
  }
  shares[largest] = std::clamp<int64_t>(ctas - others, 1, rounds[largest]);
  return shares;
}

template <ElementKind kKind, PairTable kTable>
void LaunchFewPlan(LinearSet set, const FewMmaPlan& plan, const DeviceShape& device,
                   cudaStream_t stream) {
  const MmaProducts all =
      MmaProductsOf(set, CtasForFew(set, int64_t{kUnitRows} * plan.round_tiles, device.processors));
  const dim3 grid(static_cast<unsigned int>(all.end), CtasFor(set.front().rows.bound, kMmaColumns));
  (void)LaunchEarly(device, LinearFewMmaKernel<kKind, kTable>, grid, kFewMmaThreads,
                    plan.shared_bytes, stream, all, plan);
}

template <ElementKind kKind>
bool LaunchFew(LinearSet set, const DeviceShape& device, cudaStream_t stream) {
  const LinearArgs& first = set.front();
  const MatrixShape& shape = first.weight.shape;
  const bool splits_rows = first.rows.bound > kMmaColumns || first.products.batch_invariant;
  const int64_t rows = splits_rows ? kMmaColumns : first.rows.bound;
  if constexpr (kKind == ElementKind::kFourBit) {
    constexpr PairTable kWide = PairTable::kWide;
    // Where the table takes room that activations need, phases would cost more than it gains.
    const FewMmaPlan plan = FewMmaPlanOf<kKind, kWide>(shape, rows, device);
    if (plan.phase_chunks == plan.chunks && plan.shared_bytes <= device.shared_bytes) {
      LaunchFewPlan<kKind, kWide>(set, plan, device, stream);
      return true;
    }
  }
  const FewMmaPlan plan = FewMmaPlanOf<kKind>(shape, rows, device);
  if (plan.shared_bytes > device.shared_bytes) {
    return false;
  }
  LaunchFewPlan<kKind, PairTable::kDense>(set, plan, device, stream);
  return true;
}

// Tiles of so many rows for all matrices of a set.
std::array<int64_t, kLinearSetMax> TilesOf(LinearSet set, int64_t tile_rows) {
  std::array<int64_t, kLinearSetMax> tiles = {};
  for (size_t index = 0; index < set.size(); ++index) {
    tiles[index] = CeilDivide(set[index].weight.shape.rows, tile_rows);
  }
  return tiles;
}

// CTAs that share the columns of a tile: as many as keep all multiprocessors at work, if each has
// four chunks at least.
int SplitsFor(int64_t ctas, int64_t chunks, const DeviceShape& device) {
  int splits = 1;
  while (device.capability >= 9 && splits < kTileMmaSplitsMax &&
         2 * splits * ctas <= device.processors && chunks >= 8 * splits) {
    splits *= 2;
  }
  return splits;
}

template <ElementKind kKind, int kUnits, int kGroups>
bool LaunchTile(LinearSet set, const DeviceShape& device, cudaStream_t stream) {
  using Form = TileMmaForm<kKind, kUnits, kGroups>;
  if (Form::kSharedBytes > device.shared_bytes) {
    return false;
  }
  const LinearArgs& first = set.front();
  const MmaProducts all = MmaProductsOf(set, TilesOf(set, Form::kMatrixRows));
  const unsigned int groups = CtasFor(first.rows.bound, Form::kRows);
  const int64_t chunks = CeilDivide(first.weight.shape.columns, int64_t{kUnitColumns<kKind>});
  const auto splits =
      static_cast<unsigned int>(SplitsFor(static_cast<int64_t>(all.end) * groups, chunks, device));
  (void)LaunchEarly(device, LinearTileMmaKernel<kKind, kUnits, kGroups>,
                    dim3(groups, static_cast<unsigned int>(all.end), splits), kTileMmaThreads,
                    Form::kSharedBytes, stream, all);
  return true;
}

// Matrices in 16 bits, which are few in a model, have fewer kernels.
template <ElementKind kKind>
bool LaunchKind(LinearSet set, cudaStream_t stream) {
  const DeviceShape device = CurrentDeviceShape();
  const LinearArgs& first = set.front();
  const int64_t bound = first.rows.bound;
  if (bound <= kMmaColumns || first.products.batch_invariant) {
    return LaunchFew<kKind>(set, device, stream);
  }
  if constexpr (kKind == ElementKind::kFourBit) {
    if (bound <= 16) {
      return LaunchTile<kKind, 1, 2>(set, device, stream);
    }
    // Tiles of 256 rows read activations half as often, but a small matrix has too few of them.
    const int64_t chunks = CeilDivide(first.weight.shape.columns, int64_t{kUnitColumns<kKind>});
    const std::array<int64_t, kLinearSetMax> tiles = TilesOf(set, 256);
    const int64_t large_tiles =
        std::accumulate(tiles.begin(), tiles.end(), int64_t{0}) * CeilDivide(bound, 64);
    const bool is_large =
        large_tiles * SplitsFor(large_tiles, chunks, device) * 2 > device.processors;
    if (bound <= 32) {
      return is_large ? LaunchTile<kKind, 2, 4>(set, device, stream)
                      : LaunchTile<kKind, 1, 4>(set, device, stream);
    }
    if (is_large) {
      return LaunchTile<kKind, 2, 8>(set, device, stream);
    }
  }
  return LaunchTile<kKind, 1, 8>(set, device, stream);
}

template <ElementKind kKind>
cudaError_t LoadKind() {
  cudaError_t error = TouchLarge(LinearFewMmaKernel<kKind, PairTable::kDense>);
  error = error == cudaSuccess ? TouchLarge(LinearTileMmaKernel<kKind, 1, 8>) : error;
  if constexpr (kKind == ElementKind::kFourBit) {
    error = error == cudaSuccess ? TouchLarge(LinearFewMmaKernel<kKind, PairTable::kWide>) : error;
    for (const auto kernel : {LinearTileMmaKernel<kKind, 1, 2>, LinearTileMmaKernel<kKind, 1, 4>,
                              LinearTileMmaKernel<kKind, 2, 4>, LinearTileMmaKernel<kKind, 2, 8>}) {
      error = error == cudaSuccess ? TouchLarge(kernel) : error;
    }
  }
  return error;
}

// Whether two products have the same rows and differ in N alone.
bool CanJoin(const LinearArgs& one, const LinearArgs& other) {
  const MatrixShape& shape = one.weight.shape;
  MatrixShape same = other.weight.shape;
  same.rows = shape.rows;
  return one.rows == other.rows && one.source == other.source && same == shape &&
         one.products.batch_invariant == other.products.batch_invariant;
}

}  // namespace

bool LaunchLinearMma(std::span<const LinearArgs> set, cudaStream_t stream) {
  for (const LinearArgs& args : set) {
    if (args.products.arithmetic != Arithmetic::kBf16 || !HasMmaShape(args.weight.shape) ||
        !IsAligned(args.weight.planes.data, kMmaAlignment) || !HasWideActivations(args.source) ||
        !CanJoin(set.front(), args)) {
      return false;
    }
  }
  switch (ElementKindOf(set.front().weight.shape.format)) {
    case ElementKind::kF32:
      return false;
    case ElementKind::kF16:
      return LaunchKind<ElementKind::kF16>(set, stream);
    case ElementKind::kBf16:
      return LaunchKind<ElementKind::kBf16>(set, stream);
    case ElementKind::kFourBit:
      return LaunchKind<ElementKind::kFourBit>(set, stream);
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
