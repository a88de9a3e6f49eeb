// Dequantizing by table: a block has sixteen values, which are computed once, with CUDA's
// roundings, by the reference's own functions; an element is then a lookup of each of its bytes.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/block_dequantize.cc"

#include <algorithm>
#include <array>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_quantize.h"
#include "kernels/block_quantize_ref.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // The portable fallback is the reference.

void DequantizeFullBlocks(Codebook codebook, int64_t block_size, FloatType type,
                          const uint8_t* codes, const float* scales, int64_t block_count,
                          uint8_t* target) {
  DequantizeRef(codebook, block_size, type, codes, scales, block_count * block_size,
                reinterpret_cast<std::byte*>(target));
}

#else

namespace hn = hwy::HWY_NAMESPACE;
// Sixteen bytes of codes are the 32 elements of the smallest block.
using Bytes = hn::CappedTag<uint8_t, 16>;
using VBytes = hn::Vec<Bytes>;

constexpr std::array<uint8_t, 8> kAllCodes = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};

// The bytes of a block's sixteen values, one table for each place.
template <int kElementBytes>
struct ValueTable {
  alignas(16) uint8_t bytes[kElementBytes][16];

  ValueTable(Codebook codebook, FloatType type, float scale) {
    std::array<uint8_t, 16 * kElementBytes> values;
    DequantizeRef(codebook, kBlockSizeMin, type, kAllCodes.data(), &scale, 16,
                  reinterpret_cast<std::byte*>(values.data()));
    for (size_t i = 0; i < values.size(); ++i) {
      bytes[i % kElementBytes][i / kElementBytes] = values[i];
    }
  }
};

// Stores the values of 16 codes, one code a byte.
HWY_INLINE void StoreValues(const ValueTable<2>& table, VBytes codes,
                            uint8_t* HWY_RESTRICT target) {
  const Bytes d;
  const VBytes low = hn::TableLookupBytes(hn::Load(d, table.bytes[0]), codes);
  const VBytes high = hn::TableLookupBytes(hn::Load(d, table.bytes[1]), codes);
  hn::StoreU(hn::InterleaveLower(d, low, high), d, target);
  hn::StoreU(hn::InterleaveUpper(d, low, high), d, target + 16);
}

HWY_INLINE void StoreValues(const ValueTable<4>& table, VBytes codes,
                            uint8_t* HWY_RESTRICT target) {
  const Bytes d;
  const hn::Repartition<uint16_t, Bytes> d16;
  const VBytes byte0 = hn::TableLookupBytes(hn::Load(d, table.bytes[0]), codes);
  const VBytes byte1 = hn::TableLookupBytes(hn::Load(d, table.bytes[1]), codes);
  const VBytes byte2 = hn::TableLookupBytes(hn::Load(d, table.bytes[2]), codes);
  const VBytes byte3 = hn::TableLookupBytes(hn::Load(d, table.bytes[3]), codes);
  const auto low0 = hn::BitCast(d16, hn::InterleaveLower(d, byte0, byte1));
  const auto high0 = hn::BitCast(d16, hn::InterleaveLower(d, byte2, byte3));
  const auto low1 = hn::BitCast(d16, hn::InterleaveUpper(d, byte0, byte1));
  const auto high1 = hn::BitCast(d16, hn::InterleaveUpper(d, byte2, byte3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d16, low0, high0)), d, target);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d16, low0, high0)), d, target + 16);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d16, low1, high1)), d, target + 32);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d16, low1, high1)), d, target + 48);
}

template <int kElementBytes>
void DequantizeFullBlocksOf(Codebook codebook, int64_t block_size, FloatType type,
                            const uint8_t* codes, const float* scales, int64_t block_count,
                            uint8_t* target) {
  const Bytes d;
  const hn::Repartition<uint16_t, Bytes> d16;
  const VBytes low_bits = hn::Set(d, 15);
  for (int64_t block = 0; block < block_count; ++block) {
    const ValueTable<kElementBytes> table(codebook, type, scales[block]);
    for (int64_t i = 0; i < block_size / 2; i += 16, codes += 16, target += 32 * kElementBytes) {
      const VBytes packed = hn::LoadU(d, codes);
      const VBytes even =
          hn::And(hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, packed))), low_bits);
      const VBytes odd = hn::And(packed, low_bits);
      StoreValues(table, hn::InterleaveLower(d, even, odd), target);
      StoreValues(table, hn::InterleaveUpper(d, even, odd), target + 16 * kElementBytes);
    }
  }
}

void DequantizeFullBlocks(Codebook codebook, int64_t block_size, FloatType type,
                          const uint8_t* codes, const float* scales, int64_t block_count,
                          uint8_t* target) {
  if (type == FloatType::kF32) {
    DequantizeFullBlocksOf<4>(codebook, block_size, type, codes, scales, block_count, target);
  } else {
    DequantizeFullBlocksOf<2>(codebook, block_size, type, codes, scales, block_count, target);
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(DequantizeFullBlocks);

void DequantizeBlocks(Codebook codebook, int64_t block_size, FloatType type, const uint8_t* codes,
                      const float* scales, int64_t element_count, std::byte* target) {
  const int64_t block_count = element_count / block_size;
  HWY_DYNAMIC_DISPATCH(DequantizeFullBlocks)
  (codebook, block_size, type, codes, scales, block_count, reinterpret_cast<uint8_t*>(target));
  const int64_t done = block_count * block_size;
  if (done < element_count) {
    DequantizeRef(codebook, block_size, type, codes + done / 2, scales + block_count,
                  element_count - done, target + done * BytesPerElement(type));
  }
}

}  // namespace nibble
#endif  // HWY_ONCE
