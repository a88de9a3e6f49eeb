// Dequantizing by table: a block has sixteen values, which are computed once, with CUDA's
// roundings, by the reference's own functions; an element is then a lookup of each of its bytes.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/block_dequantize.cc"

#include <algorithm>
#include <array>
#include <cmath>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_quantize.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "kernels/simd_blocks-inl.h"

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

using Float = hn::CappedTag<float, 8>;
using Int32 = hn::RebindToSigned<Float>;
using Words = hn::Repartition<uint16_t, Bytes>;

// Whether products with a codebook are neither subnormal, nor infinite, nor NaN. Half the scales of
// a search may be negative.
inline bool IsOrdinary(float scale) {
  const float magnitude = std::fabs(scale);
  return magnitude >= 0x1p-110f && magnitude <= 0x1p126f;
}

constexpr std::array<uint8_t, 8> kAllCodes = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};

// The sixteen values of a block by the reference.
void ValuesSlowly(Codebook codebook, FloatType type, float scale, uint8_t* values) {
  DequantizeRef(codebook, kBlockSizeMin, type, kAllCodes.data(), &scale, 16,
                reinterpret_cast<std::byte*>(values));
}

constexpr const float* ValuesOf(Codebook codebook) {
  return codebook == Codebook::kNf4 ? kNf4Values.data() : kFp4Values.data();
}

HWY_INLINE hn::Vec<Float> Product(const float* codebook_values, size_t index, float scale) {
  const Float d;
  return hn::Mul(hn::LoadU(d, codebook_values + index), hn::Set(d, scale));
}

HWY_INLINE void Bf16Values(const float* codebook_values, float scale, uint16_t* values) {
  const Int32 d;
  const hn::Rebind<int16_t, Float> d16;
  for (size_t i = 0; i < 16; i += hn::Lanes(d)) {
    const auto bits = hn::BitCast(d, Product(codebook_values, i, scale));
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1));
    const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7fff)));  // To nearest even.
    hn::StoreU(hn::DemoteTo(d16, hn::ShiftRight<16>(rounded)), d16,
               reinterpret_cast<int16_t*>(values) + i);
  }
}

HWY_INLINE void F16Values(const float* codebook_values, float scale, uint16_t* values) {
  const hn::Rebind<hwy::float16_t, Float> half;
  const hn::Rebind<uint16_t, Float> d16;
  for (size_t i = 0; i < 16; i += hn::Lanes(Float())) {
    hn::StoreU(hn::BitCast(d16, hn::DemoteTo(half, Product(codebook_values, i, scale))), d16,
               values + i);
  }
}

HWY_INLINE void F32Values(const float* codebook_values, float scale, float* values) {
  for (size_t i = 0; i < 16; i += hn::Lanes(Float())) {
    hn::StoreU(Product(codebook_values, i, scale), Float(), values + i);
  }
}

// The bytes of a block's sixteen values, one vector for each place.
template <int kElementBytes>
struct ValueTable;

template <>
struct ValueTable<2> {
  VBytes low, high;

  HWY_INLINE ValueTable(Codebook codebook, FloatType type, float scale) {
    alignas(64) uint16_t values[16];
    const float* const codebook_values = ValuesOf(codebook);
    const bool is_ordinary = IsOrdinary(scale);
    if (is_ordinary && type == FloatType::kBf16) {
      Bf16Values(codebook_values, scale, values);
    } else if (is_ordinary && kRoundsToF16) {
      F16Values(codebook_values, scale, values);
    } else {
      ValuesSlowly(codebook, type, scale, reinterpret_cast<uint8_t*>(values));
    }
    const Bytes d;
    const VBytes first = hn::BitCast(d, hn::LoadU(Words(), values));
    const VBytes second = hn::BitCast(d, hn::LoadU(Words(), values + 8));
    low = hn::ConcatEven(d, second, first);
    high = hn::ConcatOdd(d, second, first);
  }
};

template <>
struct ValueTable<4> {
  VBytes byte0, byte1, byte2, byte3;

  HWY_INLINE ValueTable(Codebook codebook, FloatType type, float scale) {
    alignas(64) float values[16];
    if (IsOrdinary(scale)) {
      F32Values(ValuesOf(codebook), scale, values);
    } else {
      ValuesSlowly(codebook, type, scale, reinterpret_cast<uint8_t*>(values));
    }
    const Bytes d;
    const hn::Repartition<float, Bytes> d32;
    const auto load = [&](size_t i) HWY_ATTR { return hn::BitCast(d, hn::LoadU(d32, values + i)); };
    const VBytes even_low = hn::ConcatEven(d, load(4), load(0));
    const VBytes odd_low = hn::ConcatOdd(d, load(4), load(0));
    const VBytes even_high = hn::ConcatEven(d, load(12), load(8));
    const VBytes odd_high = hn::ConcatOdd(d, load(12), load(8));
    byte0 = hn::ConcatEven(d, even_high, even_low);
    byte1 = hn::ConcatEven(d, odd_high, odd_low);
    byte2 = hn::ConcatOdd(d, even_high, even_low);
    byte3 = hn::ConcatOdd(d, odd_high, odd_low);
  }
};

// Stores the values of 16 codes, one code a byte.
HWY_INLINE void StoreValues(const ValueTable<2>& table, VBytes codes,
                            uint8_t* HWY_RESTRICT target) {
  const Bytes d;
  const VBytes low = hn::TableLookupBytes(table.low, codes);
  const VBytes high = hn::TableLookupBytes(table.high, codes);
  hn::StoreU(hn::InterleaveLower(d, low, high), d, target);
  hn::StoreU(hn::InterleaveUpper(d, low, high), d, target + 16);
}

HWY_INLINE void StoreValues(const ValueTable<4>& table, VBytes codes,
                            uint8_t* HWY_RESTRICT target) {
  const Bytes d;
  const hn::Repartition<uint16_t, Bytes> d16;
  const VBytes byte0 = hn::TableLookupBytes(table.byte0, codes);
  const VBytes byte1 = hn::TableLookupBytes(table.byte1, codes);
  const VBytes byte2 = hn::TableLookupBytes(table.byte2, codes);
  const VBytes byte3 = hn::TableLookupBytes(table.byte3, codes);
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
