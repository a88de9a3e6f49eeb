// Storing a step's keys and values.

#include <cuda_runtime.h>

#include "kernels/kv_cache.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr int kStoreThreads = 256;

// A thread a number of the keys and one of the values.
//
//   grid   bound x ceil(heads * size / 256) CTAs
//   block  256 threads
//   bytes  8 read + 4 (8 for fp32) written a pair; bound by latency
template <KvType kType>
__global__ void __launch_bounds__(kStoreThreads)
    StoreKvKernel(LiveCount rows, const int32_t* __restrict__ slots,  // [M]
                  Rows keys,                                          // [M, heads, size]
                  Rows values,                                        // [M, heads, size]
                  CacheView<kType> cache) {
  const int row = static_cast<int>(blockIdx.x);
  const int64_t index = static_cast<int64_t>(blockIdx.y) * kStoreThreads + threadIdx.x;
  const int64_t count = static_cast<int64_t>(cache.heads) * cache.size;
  if (row >= rows.Read() || index >= count) {
    return;
  }
  const int64_t slot = slots[row];
  if (slot < 0 || slot >= cache.slot_count) {
    return;
  }
  const int64_t head = index / cache.size;
  const int64_t i = index % cache.size;
  cache.keys[slot * count + index] = KvElement<kType>::Narrow(keys.At(row, head)[i]);
  cache.values[slot * count + index] = KvElement<kType>::Narrow(values.At(row, head)[i]);
}

template <KvType kType>
void StoreKv(const StoreKvArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned int>(args.rows.bound),
                  CtasFor(args.cache.heads * args.cache.head_size, kStoreThreads));
  StoreKvKernel<kType><<<grid, kStoreThreads, 0, stream>>>(
      LiveCountOf(args.rows), PointerTo<const int32_t>(args.slots), RowsOf(args.keys),
      RowsOf(args.values), CacheViewOf<kType>(args.cache));
}

}  // namespace

cudaError_t LaunchStoreKv(const StoreKvArgs& args, cudaStream_t stream) {
  switch (args.cache.type) {
    case KvType::kF32:
      StoreKv<KvType::kF32>(args, stream);
      break;
    case KvType::kF16:
      StoreKv<KvType::kF16>(args, stream);
      break;
    case KvType::kBf16:
      StoreKv<KvType::kBf16>(args, stream);
      break;
  }
  return cudaGetLastError();
}

cudaError_t LoadStoreKv() {
  return Touch(StoreKvKernel<KvType::kF32>, StoreKvKernel<KvType::kF16>,
               StoreKvKernel<KvType::kBf16>);
}

}  // namespace nibble
