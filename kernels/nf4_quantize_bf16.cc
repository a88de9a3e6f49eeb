// Quantizing BF16 to NF4, the way that most weights go: by the table of nf4_bf16_steps.h, in byte
// lanes. Per element two lookups and a comparison of bytes; per block its largest magnitude and
// the address of a row.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/nf4_quantize_bf16.cc"

#include <algorithm>
#include <bit>
#include <cstring>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_span.h"
#include "kernels/byte_packing-inl.h"
#include "kernels/nf4_bf16_steps.h"
#include "kernels/simd_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // The portable fallback is the reference.

uint64_t QuantizeFullBlocksNf4Bf16(const BlockSpan& span) {
  return QuantizeSlowly(span, 0, span.full_blocks() * span.block_size);
}

#else

namespace hn = hwy::HWY_NAMESPACE;

// Scales that the table covers, as bits: products with a smaller one may be subnormal, larger ones
// have the reciprocal 0.
constexpr int16_t kScaleMin = 0x0880;  // 2^-110
constexpr int16_t kScaleMax = 0x7e80;  // 2^126
static_assert(kScaleMin > kNf4HeightMax, "heights are counted from a magnitude");

// What a block's elements are measured with.
struct BlockRuler {
  const Nf4Bf16Steps* steps;
  int16_t floor;  // The magnitude whose height is 0.
};

// The codes of as many elements as D has bytes, in the order of PackBytes().
template <class D>
HWY_INLINE hn::Vec<D> Codes(const BlockRuler& ruler, const std::byte* source) {
  const D d8;
  const hn::RebindToSigned<D> di8;
  const hn::Repartition<uint16_t, D> d16;
  const uint8_t* const bytes = reinterpret_cast<const uint8_t*>(source);
  const auto bits0 = hn::BitCast(d16, hn::LoadU(d8, bytes));
  const auto bits1 = hn::BitCast(d16, hn::LoadU(d8, bytes + hn::Lanes(d8)));
  const auto floor = hn::Set(d16, static_cast<uint16_t>(ruler.floor));
  const auto magnitude_bits = hn::Set(d16, 0x7fff);
  const auto height0 = hn::SaturatedSub(hn::And(bits0, magnitude_bits), floor);
  const auto height1 = hn::SaturatedSub(hn::And(bits1, magnitude_bits), floor);
  const auto factor = hn::Set(d16, kNf4IntervalFactor);
  const auto interval = PackBytes(hn::MulHigh(height0, factor), hn::MulHigh(height1, factor));
  const auto low_byte = hn::Set(d16, 0x00ff);
  const auto height = PackBytes(hn::And(height0, low_byte), hn::And(height1, low_byte));
#if HWY_TARGET == HWY_SSSE3  // Its IfNegativeThenElse() takes every bit of a byte for the sign.
  const auto sign = hn::BroadcastSignBit(PackSigns(bits0, bits1));
#else
  const auto sign = PackSigns(bits0, bits1);
#endif

  const auto look_up = [&](const std::array<uint8_t, 16>& table) HWY_ATTR {
    return hn::BitCast(di8, hn::TableLookupBytes(hn::LoadDup128(d8, table.data()), interval));
  };
  const Nf4Bf16Steps& steps = *ruler.steps;
  const auto step =
      hn::IfNegativeThenElse(sign, look_up(steps.negative_step), look_up(steps.positive_step));
  const auto higher =
      hn::IfNegativeThenElse(sign, look_up(steps.negative_higher), look_up(steps.positive_higher));
  // Negative where a positive number is below its step, or a negative one is not.
  const auto is_lower = hn::Xor(hn::Sub(hn::BitCast(di8, height), step), sign);
  return hn::BitCast(d8, hn::Add(higher, hn::BroadcastSignBit(is_lower)));
}

// Codes of `vector_count` vectors of elements; 2^vectors_per_block_log2 of them share a ruler.
template <class D>
HWY_INLINE void StoreCodes(const BlockRuler* rulers, int vectors_per_block_log2,
                           int64_t vector_count, const std::byte* source,
                           uint8_t* HWY_RESTRICT codes) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(D()));
  int64_t i = 0;
  for (; i + 2 <= vector_count; i += 2) {
    const auto low = Codes<D>(rulers[i >> vectors_per_block_log2], source + 2 * i * lanes);
    const auto high =
        Codes<D>(rulers[(i + 1) >> vectors_per_block_log2], source + 2 * (i + 1) * lanes);
    StoreInOrder(JoinNibbles(low), JoinNibbles(high), codes + i * lanes / 2);
  }
  if (i < vector_count) {
    uint8_t padded[64];
    const auto last =
        JoinNibbles(Codes<D>(rulers[i >> vectors_per_block_log2], source + 2 * i * lanes));
    StoreInOrder(last, last, padded);
    std::memcpy(codes + i * lanes / 2, padded, static_cast<size_t>(lanes / 2));
  }
}

// Blocks whose stages run one after the other: a stage of one block depends on the stage before it,
// and a processor looks only a few hundred instructions ahead for others' work. 16 blocks of 64 are
// 2 KiB of source, which stay in the first cache.
constexpr int64_t kBatchElements = 1024;
constexpr int64_t kBatchBlocksMax = kBatchElements / kBlockSizeMin;

// Requires: a block has as many elements as D has bytes, or a multiple.
template <class D>
uint64_t QuantizeBatch(const BlockSpan& span, int64_t first_block, int64_t block_count) {
  const int64_t block_size = span.block_size;
  const std::byte* const source = span.source + first_block * block_size * 2;
  uint8_t* const codes = span.codes + first_block * block_size / 2;
  int16_t magnitudes[kBatchBlocksMax];
  BlockRuler rulers[kBatchBlocksMax];
  bool all_covered = true;
  for (int64_t i = 0; i < block_count; ++i) {
    const int16_t magnitude = LargestMagnitude16Bit(source + i * block_size * 2, block_size);
    magnitudes[i] = magnitude;
    rulers[i] = {&kNf4Bf16Steps[static_cast<size_t>(magnitude & 127)],
                 static_cast<int16_t>(magnitude - kNf4HeightMax)};
    span.scales[first_block + i] = std::bit_cast<float>(static_cast<uint32_t>(magnitude) << 16);
    all_covered &= magnitude >= kScaleMin && magnitude <= kScaleMax;
  }
  const int64_t vectors_per_block = block_size / static_cast<int64_t>(hn::Lanes(D()));
  StoreCodes<D>(rulers, std::countr_zero(static_cast<uint64_t>(vectors_per_block)),
                block_count * vectors_per_block, source, codes);
  if (all_covered) [[likely]] {
    return kAllFinite;
  }
  uint64_t first_non_finite = kAllFinite;
  for (int64_t i = 0; i < block_count; ++i) {
    if (magnitudes[i] == 0) {
      std::memset(codes + i * block_size / 2, 0, static_cast<size_t>(block_size / 2));
    } else if (magnitudes[i] < kScaleMin || magnitudes[i] > kScaleMax) {
      const int64_t begin = (first_block + i) * block_size;
      first_non_finite =
          std::min(first_non_finite, QuantizeSlowly(span, begin, begin + block_size));
    }
  }
  return first_non_finite;
}

template <class D>
uint64_t QuantizeBatches(const BlockSpan& span) {
  const int64_t batch = std::max<int64_t>(1, kBatchElements / span.block_size);
  uint64_t first_non_finite = kAllFinite;
  for (int64_t block = 0; block < span.full_blocks(); block += batch) {
    const int64_t count = std::min(batch, span.full_blocks() - block);
    first_non_finite = std::min(first_non_finite, QuantizeBatch<D>(span, block, count));
  }
  return first_non_finite;
}

uint64_t QuantizeFullBlocksNf4Bf16(const BlockSpan& span) {
  return span.block_size < 64 ? QuantizeBatches<hn::CappedTag<uint8_t, 32> >(span)
                              : QuantizeBatches<hn::CappedTag<uint8_t, 64> >(span);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(QuantizeFullBlocksNf4Bf16);

uint64_t QuantizeFullBlocksNf4Bf16(const BlockSpan& span) {
  return HWY_DYNAMIC_DISPATCH(QuantizeFullBlocksNf4Bf16)(span);
}

}  // namespace nibble
#endif  // HWY_ONCE
