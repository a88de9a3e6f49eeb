// The scale search on a GPU, after the plain quantizer: it reads the scales found there and writes
// over those blocks that it improves on. Contract: scale_search_table.h.

#include "kernels/block_codes.cuh"
#include "kernels/block_kernels.h"
#include "kernels/elements.cuh"
#include "kernels/kernel_instances.cuh"
#include "kernels/scale_candidates.cuh"
#include "kernels/scale_search_table.h"

namespace nibble {
namespace {

// A CTA copies a table of 18 KB first, so it searches several times 4096 elements. A guess.
constexpr int kTilesPerCta = 4;

// By codebook, then by set of factors. LoadScaleSearch() fills them.
constexpr int kTables = 4;
__device__ ScaleSearchTable device_tables[kTables];

constexpr int TableIndex(Codebook codebook, int64_t block_size) {
  return (codebook == Codebook::kNf4 ? 0 : 2) +
         (&SearchFactorsOf(block_size) == &kNearFactors ? 0 : 1);
}

// What `values` has for the level nearest to x.
__device__ __forceinline__ int NearestOf(const ByLevel<int16_t>& thresholds,
                                         const ByLevel<int16_t>& values, int x) {
  const int b3 = x > thresholds[1][3] ? 4 : 0;
  const int b2 = b3 + (x > thresholds[1][b3 + 1] ? 2 : 0);
  const int b1 = b2 + (x > thresholds[1][b2] ? 1 : 0);
  return values[x > thresholds[0][b1] ? 1 : 0][b1];
}

struct SearchedBlock {
  float factor;  // f'
  bool is_turned;
  unsigned long long plain_error;
};

__device__ __forceinline__ SearchedBlock ImproveFactor(const int (&x)[kVectorElements],
                                                       int element_count, int candidate,
                                                       int group_threads,
                                                       ScaleSearchShared& shared) {
  const ScaleSearchTable& table = shared.table;
  const bool is_turned = candidate >= kSearchFactors;
  const ByLevel<int16_t>& thresholds = table.thresholds[candidate % kSearchFactors];
  int products = 0;  // 8 * 2^14 * 2^12 fit.
  int squares = 0;
  int errors = 0;
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    const int turned = is_turned ? -x[i] : x[i];
    const int weight = NearestOf(thresholds, table.weights, turned);
    products += turned * weight;
    squares += weight * weight;
    const int distance = abs(x[i] - NearestOf(table.plain_thresholds, table.plain_levels, x[i]));
    const int least = max(0, distance - kSearchErrorMargin);
    errors += i < element_count ? least * least : 0;
  }
  unsigned long long sums[3] = {static_cast<unsigned long long>(static_cast<long long>(products)),
                                static_cast<unsigned long long>(squares),
                                static_cast<unsigned long long>(errors)};
  GroupSum(sums, group_threads, shared);
  const float ratio = __fdiv_rn(__ll2float_rn(static_cast<long long>(sums[0])),
                                __ll2float_rn(static_cast<long long>(sums[1])));
  const float factor = ratio / (1 << kSearchWeightShift);
  const bool is_factor = factor >= kSearchFactorMin && factor <= kSearchFactorMax;
  // Nothing is less than no error.
  return {is_factor ? factor : 1.0f, is_turned, is_factor ? sums[2] : 0};
}

// The error of `codes` (as CodesOf() has them) under a factor.
__device__ __forceinline__ unsigned long long ErrorOf(const int (&x)[kVectorElements],
                                                      int element_count, uint32_t codes,
                                                      const SearchedBlock& block,
                                                      const ScaleSearchTable& table) {
  const float unit = block.factor * kSearchUnit;  // Exact.
  unsigned errors = 0;                            // 8 * (2^14 + 2)^2 fit.
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    const uint32_t code = codes >> (4 * (i ^ 1)) & 15u;
    const int level = __float2int_rn(__fmul_rn(table.values_by_code[code], unit));
    const int turned = block.is_turned ? -x[i] : x[i];
    const int most = abs(turned - level) + kSearchErrorMargin;
    errors += i < element_count ? static_cast<unsigned>(most * most) : 0u;
  }
  return errors;
}

__device__ __forceinline__ bool IsFinite(const float (&values)[kVectorElements]) {
  bool is_finite = true;
#pragma unroll
  for (int i = 0; i < kVectorElements; ++i) {
    is_finite = is_finite && fabsf(values[i]) <= FLT_MAX;
  }
  return is_finite;
}

// Larger than any error of a block, small enough to be added 512 times.
constexpr unsigned long long kInfiniteError = 1ull << 50;

// Each thread holds eight elements; the threads of a block agree on its scale, as in the plain
// quantizer. Blocks that are not searched have x = 0 and go along, for the sake of the barriers.
//
//   grid   ceil(n / 16384) CTAs
//   block  512 threads
//   bytes  2 (4 for fp32) read + up to 0.5 + 4 / block_size written an element; bound by shared
//          memory: 32 bytes an element and sign, from rows that conflict
template <Codebook kCodebook, FloatType kType, bool kAligned, bool kSigned>
__global__ void __launch_bounds__(kCtaThreads)
    ScaleSearchKernel(const typename Element<kType>::Storage* __restrict__ source,  // [n]
                      int64_t element_count,                                        // n
                      int block_shift,  // log2(block_size)
                      int table_index,
                      uint8_t* codes,   // [(n + 1) / 2]
                      float* scales) {  // [ceil(n / block_size)]
  __shared__ ScaleSearchShared shared;
  static_assert(sizeof(ScaleSearchTable) % sizeof(uint4) == 0);
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(ScaleSearchTable) / sizeof(uint4));
       i += kCtaThreads) {
    reinterpret_cast<uint4*>(&shared.table)[i] =
        reinterpret_cast<const uint4*>(&device_tables[table_index])[i];
  }
  __syncthreads();

  const int group_threads = (1 << block_shift) / kVectorElements;
  const int64_t first_tile = static_cast<int64_t>(blockIdx.x) * kTilesPerCta;
  for (int64_t tile = first_tile; tile < first_tile + kTilesPerCta; ++tile) {
    if (tile * kCtaThreads * kVectorElements >= element_count) {
      return;
    }
    const int64_t index = (tile * kCtaThreads + threadIdx.x) * kVectorElements;
    const int64_t remaining = element_count - index;
    const int count =
        static_cast<int>(max(int64_t{0}, min(remaining, static_cast<int64_t>(kVectorElements))));
    float values[kVectorElements];
    LoadVector<kType, kAligned>(source + index, remaining, values);

    const int64_t block = index >> block_shift;
    const float absmax = block << block_shift < element_count ? scales[block] : 0.0f;
    const bool is_searched = absmax >= kSearchedScaleMin && absmax <= kSearchedScaleMax;
    const float unit = is_searched ? __fdiv_rn(kSearchUnit, absmax) : 0.0f;
    int x[kVectorElements];
#pragma unroll
    for (int i = 0; i < kVectorElements; ++i) {
      x[i] = __float2int_rn(__fmul_rn(values[i], unit));  // NaN gives 0.
    }
    const int candidate = CheapestCandidate < kSigned ? 2 : 1 > (x, group_threads, shared);
    const SearchedBlock searched = ImproveFactor(x, count, candidate, group_threads, shared);
    const float magnitude = __fmul_rn(searched.factor, absmax);
    const float scale = searched.is_turned ? -magnitude : magnitude;
    const uint32_t vector_codes = CodesOf<kCodebook>(values, __frcp_rn(scale));
    unsigned long long error[1] = {IsFinite(values)
                                       ? ErrorOf(x, count, vector_codes, searched, shared.table)
                                       : kInfiniteError};
    GroupSum(error, group_threads, shared);
    if (is_searched && searched.factor >= kSearchFactorMin && searched.factor <= kSearchFactorMax &&
        error[0] < searched.plain_error) {
      if (remaining > 0 && block << block_shift == index) {
        scales[block] = scale;
      }
      if (remaining > 0) {
        StoreCodes<kAligned>(vector_codes, remaining, codes + index / 2);
      }
    }
  }
}

template <Codebook kCodebook, FloatType kType, bool kSigned>
void Launch(const BlockQuantizeLaunch& launch, cudaStream_t stream) {
  using Storage = typename Element<kType>::Storage;
  const bool aligned = IsAligned(launch.source, 16) && IsAligned(launch.codes, 4);
  const auto kernel = aligned ? ScaleSearchKernel<kCodebook, kType, true, kSigned>
                              : ScaleSearchKernel<kCodebook, kType, false, kSigned>;
  const unsigned int ctas =
      static_cast<unsigned int>(CeilDivide(CtaCount(launch.element_count), kTilesPerCta));
  kernel<<<ctas, kCtaThreads, 0, stream>>>(static_cast<const Storage*>(launch.source),
                                           launch.element_count, BlockShift(launch.block_size),
                                           TableIndex(kCodebook, launch.block_size), launch.codes,
                                           launch.scales);
}

}  // namespace

cudaError_t LaunchScaleSearch(const BlockQuantizeLaunch& launch, ScaleSearch search,
                              cudaStream_t stream) {
  if (launch.element_count == 0) {
    return cudaSuccess;
  }
  WithFloatType(launch.source_type, [&](auto type) {
    if (launch.codebook == Codebook::kFp4) {
      Launch<Codebook::kFp4, type.value, false>(launch, stream);
    } else if (IsSigned(search, launch.codebook)) {
      Launch<Codebook::kNf4, type.value, true>(launch, stream);
    } else {
      Launch<Codebook::kNf4, type.value, false>(launch, stream);
    }
  });
  return cudaGetLastError();
}

cudaError_t LoadScaleSearch() {
  const cudaError_t loaded = LoadEachFloatType([](auto type) {
    return LoadKernels(ScaleSearchKernel<Codebook::kNf4, type.value, true, false>,
                       ScaleSearchKernel<Codebook::kNf4, type.value, false, false>,
                       ScaleSearchKernel<Codebook::kNf4, type.value, true, true>,
                       ScaleSearchKernel<Codebook::kNf4, type.value, false, true>,
                       ScaleSearchKernel<Codebook::kFp4, type.value, true, false>,
                       ScaleSearchKernel<Codebook::kFp4, type.value, false, false>);
  });
  if (loaded != cudaSuccess) {
    return loaded;
  }
  for (const Codebook codebook : {Codebook::kNf4, Codebook::kFp4}) {
    for (const int64_t block_size : {kBlockSizeMin, kBlockSizeMax}) {  // One of each set.
      const size_t offset =
          static_cast<size_t>(TableIndex(codebook, block_size)) * sizeof(ScaleSearchTable);
      const cudaError_t error =
          cudaMemcpyToSymbol(device_tables, &ScaleSearchTableOf(codebook, block_size),
                             sizeof(ScaleSearchTable), offset, cudaMemcpyHostToDevice);
      if (error != cudaSuccess) {
        return error;
      }
    }
  }
  return cudaSuccess;
}

}  // namespace nibble
