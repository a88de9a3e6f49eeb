// Storing a step's keys and values, and turning heads before.

#include <cuda_runtime.h>

#include "kernels/early_launch.cuh"
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
  LetNextBegin();
  WaitForPrevious();
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
  (void)LaunchEarly(CurrentDeviceShape(), StoreKvKernel<kType>, grid, kStoreThreads, 0, stream,
                    LiveCountOf(args.rows), PointerTo<const int32_t>(args.slots), RowsOf(args.keys),
                    RowsOf(args.values), CacheViewOf<kType>(args.cache));
}

struct RopeForm {
  const int32_t* positions;  // [M]
  const float* frequencies;  // [count]
  int count;
  bool interleaved;
  float magnitude;
};

// A thread turns a pair of a query or a key, or takes a number that is not turned, or one of the
// values. The accurate functions: a position times a frequency is thousands of radians.
//
//   grid   bound x ceil(((H + G) (D - count) + G D) / 256) CTAs
//   block  256 threads
//   bytes  8 read and written a number that is turned, and what is stored; bound by latency
template <KvType kType>
__global__ void __launch_bounds__(kStoreThreads)
    RopeStoreKvKernel(LiveCount rows, RopeForm rope, const int32_t* __restrict__ slots,  // [M]
                      Rows queries,  // [M, H, D]
                      Rows keys,     // [M, G, D]
                      Rows values,   // [M, G, D]
                      CacheView<kType> cache) {
  LetNextBegin();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x);
  int item = static_cast<int>(blockIdx.y) * kStoreThreads + static_cast<int>(threadIdx.x);
  if (row >= rows.Read()) {
    return;
  }
  const int64_t slot = slots[row];
  const bool stores = slot >= 0 && slot < cache.slot_count;
  const int64_t first = slot * cache.heads * cache.size;
  const int head_items = cache.size - rope.count;
  const int turned_items = (queries.groups + keys.groups) * head_items;
  if (item >= turned_items) {
    item -= turned_items;
    if (stores && item < cache.heads * cache.size) {
      cache.values[first + item] =
          KvElement<kType>::Narrow(values.At(row, item / cache.size)[item % cache.size]);
    }
    return;
  }
  const int head = item / head_items;
  const int i = item % head_items;
  const int key_head = head - queries.groups;
  const bool is_key = key_head >= 0;
  float* const numbers = is_key ? keys.At(row, key_head) : queries.At(row, head);
  const auto store = [&](int place) {
    if (is_key && stores) {
      cache.keys[first + key_head * cache.size + place] = KvElement<kType>::Narrow(numbers[place]);
    }
  };
  if (i >= rope.count) {
    store(i + rope.count);
    return;
  }
  const float angle = __fmul_rn(static_cast<float>(rope.positions[row]), rope.frequencies[i]);
  const float cosine = cosf(angle) * rope.magnitude;
  const float sine = sinf(angle) * rope.magnitude;
  const int one = rope.interleaved ? 2 * i : i;
  const int other = rope.interleaved ? 2 * i + 1 : i + rope.count;
  const float before = numbers[one];
  const float opposite = numbers[other];
  numbers[one] = before * cosine - opposite * sine;
  numbers[other] = opposite * cosine + before * sine;
  store(one);
  store(other);
}

template <KvType kType>
void RopeStoreKv(const RopeStoreKvArgs& args, cudaStream_t stream) {
  const RopeArgs& queries = args.queries;
  const KvCache& cache = args.store.cache;
  const RopeForm rope = {
      PointerTo<const int32_t>(queries.positions), PointerTo<const float>(queries.frequencies),
      static_cast<int>(queries.frequency_count), queries.interleaved, queries.magnitude};
  const int64_t items =
      (queries.heads.groups + cache.heads) * (cache.head_size - queries.frequency_count) +
      cache.heads * cache.head_size;
  const dim3 grid(static_cast<unsigned int>(queries.rows.bound), CtasFor(items, kStoreThreads));
  (void)LaunchEarly(CurrentDeviceShape(), RopeStoreKvKernel<kType>, grid, kStoreThreads, 0, stream,
                    LiveCountOf(queries.rows), rope, PointerTo<const int32_t>(args.store.slots),
                    RowsOf(queries.heads), RowsOf(args.store.keys), RowsOf(args.store.values),
                    CacheViewOf<kType>(cache));
}

// Whether one launch can do all three.
bool IsOne(const RopeStoreKvArgs& args) {
  RopeArgs same = args.keys;
  same.heads = args.queries.heads;
  return same == args.queries && args.keys.rows == args.store.rows &&
         args.keys.heads == args.store.keys &&
         args.queries.heads.width == args.store.cache.head_size;
}

}  // namespace

cudaError_t LaunchRopeStoreKv(const RopeStoreKvArgs& args, cudaStream_t stream) {
  if (!IsOne(args)) {
    for (const RopeArgs* const rope : {&args.queries, &args.keys}) {
      if (const cudaError_t error = LaunchRope(*rope, stream); error != cudaSuccess) {
        return error;
      }
    }
    return LaunchStoreKv(args.store, stream);
  }
  switch (args.store.cache.type) {
    case KvType::kF32:
      RopeStoreKv<KvType::kF32>(args, stream);
      break;
    case KvType::kF16:
      RopeStoreKv<KvType::kF16>(args, stream);
      break;
    case KvType::kBf16:
      RopeStoreKv<KvType::kBf16>(args, stream);
      break;
  }
  return cudaGetLastError();
}

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
               StoreKvKernel<KvType::kBf16>, RopeStoreKvKernel<KvType::kF32>,
               RopeStoreKvKernel<KvType::kF16>, RopeStoreKvKernel<KvType::kBf16>);
}

}  // namespace nibble
