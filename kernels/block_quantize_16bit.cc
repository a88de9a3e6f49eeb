// Quantizing F16, and BF16 to FP4, without floating point per element. fl(v * reciprocal) grows
// with v, so for each threshold t of the codebook there is a largest 16-bit number that is not
// above it. As integers, in an order that agrees with that of the numbers, these are the boundaries
// of the codes: a code is a binary search of 16-bit lanes in a table that is made once per block.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/block_quantize_16bit.cc"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cstring>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_span.h"
#include "kernels/fp4_format.h"
#include "kernels/gpu_reciprocal.h"
#include "kernels/nf4_format.h"
#include "kernels/simd_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // The portable fallback is the reference.

uint64_t QuantizeFullBlocks16Bit(const BlockSpan& span) {
  return QuantizeSlowly(span, 0, span.full_blocks() * span.block_size);
}

#else

namespace hn = hwy::HWY_NAMESPACE;
using Float = hn::CappedTag<float, 16>;
using VFloat = hn::Vec<Float>;
using Int32 = hn::RebindToSigned<Float>;
using VInt32 = hn::Vec<Int32>;

// Thresholds in the order in which the search wants their boundaries: the last step's, by the bits
// found so far; the third step's; the second's; the first.
alignas(64) constexpr std::array<float, 16> kNf4Search = {
    kNf4Thresholds[0], kNf4Thresholds[2],  kNf4Thresholds[4],  kNf4Thresholds[6],
    kNf4Thresholds[8], kNf4Thresholds[10], kNf4Thresholds[12], kNf4Thresholds[14],
    kNf4Thresholds[1], kNf4Thresholds[5],  kNf4Thresholds[9],  kNf4Thresholds[13],
    kNf4Thresholds[3], kNf4Thresholds[11], kNf4Thresholds[7],  0.0f};
alignas(64) constexpr std::array<float, 16> kFp4Search = {
    kFp4Thresholds[0], kFp4Thresholds[2], kFp4Thresholds[4], kFp4Thresholds[6],
    kFp4Thresholds[1], kFp4Thresholds[5], kFp4Thresholds[3], 0.0f};

// The order of 16-bit floats as integers: the magnitude's bits, negated below zero. Both zeros are
// 0.
HWY_INLINE VInt16 Key(VInt16 bits) {
  const VInt16 magnitude = hn::And(bits, hn::Set(Int16(), 0x7fff));
#if HWY_TARGET == HWY_AVX2
  return VInt16{_mm256_sign_epi16(magnitude.raw, bits.raw)};
#endif
  const VInt16 sign = hn::ShiftRight<15>(bits);
  return hn::Sub(hn::Xor(magnitude, sign), sign);
}

// How a type's numbers and keys turn into each other.
struct Bf16 {
  static constexpr int16_t kScaleMin = 0x0880;  // 2^-110: no threshold times it is subnormal.
  static constexpr int16_t kScaleMax = 0x7e80;  // 2^126: larger scales have the reciprocal 0.
  static constexpr int16_t kScaleFinite = 0x7f7f;
  static constexpr int16_t kSubnormalMax = 0x007f;  // Largest magnitude that is taken for 0.

  static float Value(int16_t magnitude) {
    return std::bit_cast<float>(static_cast<uint32_t>(magnitude) << 16);
  }
  // The largest key whose number is <= value.
  static HWY_INLINE VInt32 KeyBelow(VFloat value) {
    const Int32 d;
    const VInt32 bits = hn::BitCast(d, value);
    const VInt32 sign = hn::ShiftRight<31>(bits);
    const VInt32 magnitude = hn::And(bits, hn::Set(d, 0x7fffffff));
    return hn::ShiftRight<16>(hn::Sub(hn::Xor(magnitude, sign), sign));
  }
  static HWY_INLINE VFloat Number(VInt32 key) {
    const Int32 d;
    const VInt32 sign = hn::And(key, hn::Set(d, INT32_MIN));
    return hn::BitCast(Float(), hn::Or(hn::ShiftLeft<16>(hn::Abs(key)), sign));
  }
};

struct F16 {
  static constexpr int16_t kScaleMin = 0x0001;  // Subnormals of F16 are normal in fp32.
  static constexpr int16_t kScaleMax = 0x7bff;
  static constexpr int16_t kScaleFinite = 0x7bff;
  static constexpr int16_t kSubnormalMax = 0;

  static float Value(int16_t magnitude) {
    const hn::CappedTag<float, 1> d;
    const hn::Rebind<int16_t, decltype(d)> d16;
    const hn::Rebind<hwy::float16_t, decltype(d)> half;
    return hn::GetLane(hn::PromoteTo(d, hn::BitCast(half, hn::Set(d16, magnitude))));
  }
  // A key whose number is next to `value` or equal to it.
  static HWY_INLINE VInt32 KeyBelow(VFloat value) {
    const Int32 d;
    const hn::Rebind<hwy::float16_t, Float> half;
    const hn::Rebind<int16_t, Float> d16;
    const auto bits = hn::BitCast(d16, hn::DemoteTo(half, value));
    const auto magnitude = hn::And(bits, hn::Set(d16, 0x7fff));
    const VInt32 sign = hn::ShiftRight<31>(hn::BitCast(d, value));
    const VInt32 wide = hn::PromoteTo(d, magnitude);
    return hn::Sub(hn::Xor(wide, sign), sign);
  }
  static HWY_INLINE VFloat Number(VInt32 key) {
    const Int32 d;
    const hn::Rebind<int16_t, Float> d16;
    const hn::Rebind<hwy::float16_t, Float> half;
    const VInt32 sign = hn::ShiftRight<16>(hn::And(key, hn::Set(d, INT32_MIN)));
    const auto bits = hn::DemoteTo(d16, hn::Or(hn::Abs(key), sign));
    return hn::PromoteTo(Float(), hn::BitCast(half, bits));
  }
};

// boundaries[i] = the largest key k with fl(Number(k) * reciprocal) <= thresholds[i]. The product
// of threshold and scale lies within one key of it; where that is not enough the rounded products
// of both neighbours decide.
template <class Type>
HWY_INLINE void FindBoundaries(const std::array<float, 16>& thresholds, size_t count, float scale,
                               float reciprocal, int16_t* HWY_RESTRICT boundaries) {
  const Float d;
  const hn::Rebind<int16_t, Float> d16;
  const VFloat vscale = hn::Set(d, scale);
  const VFloat vreciprocal = hn::Set(d, reciprocal);
  const VInt32 one = hn::Set(Int32(), 1);
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const VFloat threshold = hn::Load(d, thresholds.data() + i);
    VInt32 key = Type::KeyBelow(hn::Mul(threshold, vscale));
    const auto above = hn::Gt(hn::Mul(Type::Number(key), vreciprocal), threshold);
    const auto next_above =
        hn::Gt(hn::Mul(Type::Number(hn::Add(key, one)), vreciprocal), threshold);
    key = hn::Sub(key, hn::IfThenElseZero(hn::RebindMask(Int32(), above), one));
    key = hn::Add(key, hn::IfThenZeroElse(hn::RebindMask(Int32(), next_above), one));
    hn::StoreU(hn::DemoteTo(d16, key), d16, boundaries + i);
  }
}

// 16-bit table entries are looked up by bytes: entry i is bytes 2i and 2i + 1, so an index is the
// lane 0x0100 + i * 0x0202.
constexpr int16_t kIndexZero = 0x0100;
constexpr int16_t kIndexStep = 0x0202;

template <Codebook kCodebook, class Type>
class Search;

// Made in two steps, so that those of several blocks are in flight together: Prepare() once a block
// has its scale, the constructor when its codes are wanted.
template <class Type>
class Search<Codebook::kNf4, Type> {
 public:
  static HWY_INLINE void Prepare(float scale, int16_t* HWY_RESTRICT boundaries) {
    FindBoundaries<Type>(kNf4Search, 16, scale, GpuReciprocal(scale), boundaries);
  }

  explicit HWY_INLINE Search(const int16_t* boundaries) {
    const Int16 d;
    fourth_ = hn::LoadDup128(d, boundaries);
    third_ = hn::LoadDup128(d, boundaries + 8);
    second_low_ = hn::Set(d, boundaries[12]);
    second_high_ = hn::Set(d, boundaries[13]);
    first_ = hn::Set(d, boundaries[14]);
  }

  // Codes in the low bytes of the lanes.
  HWY_INLINE VInt16 Codes(VInt16 bits) const {
    const Int16 d;
    const VInt16 key = Key(bits);
    const auto bit3 = hn::Gt(key, first_);
    const auto bit2 = hn::Gt(key, hn::IfThenElse(bit3, second_high_, second_low_));
    const VInt16 index2 = hn::Add(
        hn::IfThenElse(bit3, hn::Set(d, kIndexZero + 2 * kIndexStep), hn::Set(d, kIndexZero)),
        hn::IfThenElseZero(bit2, hn::Set(d, kIndexStep)));
    const auto bit1 = hn::Gt(key, hn::TableLookupBytes(third_, index2));
    // Twice an index doubles its zero too.
    const VInt16 index3 =
        hn::Add(hn::Add(index2, index2),
                hn::IfThenElse(bit1, hn::Set(d, kIndexStep - kIndexZero), hn::Set(d, -kIndexZero)));
    const auto bit0 = hn::Gt(key, hn::TableLookupBytes(fourth_, index3));
    // The low byte of an index is twice what it stands for.
    return hn::Sub(index3, hn::VecFromMask(d, bit0));
  }

 private:
  VInt16 first_, second_low_, second_high_, third_, fourth_;
};

template <class Type>
class Search<Codebook::kFp4, Type> {
 public:
  static HWY_INLINE void Prepare(float scale, int16_t* HWY_RESTRICT boundaries) {
    const float reciprocal = GpuReciprocal(scale);
    FindBoundaries<Type>(kFp4Search, 8, scale, reciprocal, boundaries);
    boundaries[7] = SignlessMax(reciprocal);
  }

  explicit HWY_INLINE Search(const int16_t* boundaries) {
    const Int16 d;
    third_ = hn::LoadDup128(d, boundaries);
    second_low_ = hn::Set(d, boundaries[4]);
    second_high_ = hn::Set(d, boundaries[5]);
    first_ = hn::Set(d, boundaries[6]);
    signless_ = hn::Set(d, boundaries[7]);
  }

  HWY_INLINE VInt16 Codes(VInt16 bits) const {
    const Int16 d;
    const hn::Repartition<uint8_t, Int16> d8;
    alignas(16) static constexpr uint8_t kOrder[16] = {0, 1, 6, 7, 4, 5, 2, 3,
                                                       0, 1, 6, 7, 4, 5, 2, 3};
    static_assert(std::equal(kFp4Order.begin(), kFp4Order.end(), kOrder));
    const VInt16 magnitude = hn::And(bits, hn::Set(d, 0x7fff));
    const auto bit2 = hn::Gt(magnitude, first_);
    const auto bit1 = hn::Gt(magnitude, hn::IfThenElse(bit2, second_high_, second_low_));
    const VInt16 index = hn::Add(
        hn::IfThenElse(bit2, hn::Set(d, kIndexZero + 2 * kIndexStep), hn::Set(d, kIndexZero)),
        hn::IfThenElseZero(bit1, hn::Set(d, kIndexStep)));
    const auto bit0 = hn::Gt(magnitude, hn::TableLookupBytes(third_, index));
    const VInt16 rank = hn::Sub(index, hn::VecFromMask(d, bit0));
    const VInt16 low_byte = hn::And(rank, hn::Set(d, 0x00ff));
    const VInt16 code =
        hn::BitCast(d, hn::TableLookupBytes(hn::LoadDup128(d8, kOrder), hn::BitCast(d8, low_byte)));
    const auto is_signed = hn::And(hn::Gt(magnitude, signless_), hn::Lt(bits, hn::Zero(d)));
    return hn::Or(code, hn::IfThenElseZero(is_signed, hn::Set(d, 8)));
  }

 private:
  // The largest magnitude whose product with `reciprocal` is flushed to zero, which has no sign.
  static int16_t SignlessMax(float reciprocal) {
    if (reciprocal >= 1.0f || reciprocal == 0.0f) {  // 0: a block that the fast path leaves out.
      return Type::kSubnormalMax;
    }
    int16_t low = Type::kSubnormalMax;
    int16_t high = Type::kScaleFinite;
    while (high - low > 1) {
      const int16_t middle = static_cast<int16_t>((low + high) / 2);
      (Type::Value(middle) * reciprocal < FLT_MIN ? low : high) = middle;
    }
    return low;
  }

  VInt16 first_, second_low_, second_high_, third_, signless_;
};

template <class Search>
HWY_INLINE void StoreCodes(const Search& search, const std::byte* source, int64_t block_size,
                           uint8_t* HWY_RESTRICT codes) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Int16()));
  if (2 * lanes > block_size) {  // A block of 32 is one vector of the widest targets, not two.
    std::array<uint8_t, 32> padded;
    const VInt16 vector = search.Codes(LoadBits(source));
    StoreNibbles(vector, vector, padded.data());
    std::memcpy(codes, padded.data(), static_cast<size_t>(block_size / 2));
    return;
  }
#if HWY_TARGET == HWY_AVX2
  if (block_size % (4 * lanes) == 0) {
    for (int64_t i = 0; i < block_size; i += 4 * lanes) {
      const std::byte* const at = source + 2 * i;
      StoreNibbles(search.Codes(LoadBits(at)), search.Codes(LoadBits(at + 2 * lanes)),
                   search.Codes(LoadBits(at + 4 * lanes)), search.Codes(LoadBits(at + 6 * lanes)),
                   codes + i / 2);
    }
    return;
  }
#endif
  for (int64_t i = 0; i < block_size; i += 2 * lanes) {
    StoreNibbles(search.Codes(LoadBits(source + 2 * i)),
                 search.Codes(LoadBits(source + 2 * (i + lanes))), codes + i / 2);
  }
}

// Blocks whose stages run one after the other: a stage of one block depends on the stage before it,
// and a processor looks only a few hundred instructions ahead for others' work. 16 blocks of 64 are
// 2 KiB of source, which stay in the first cache.
constexpr int64_t kBatchElements = 1024;
constexpr int64_t kBatchBlocksMax = kBatchElements / kBlockSizeMin;

template <Codebook kCodebook, class Type>
uint64_t QuantizeBatch(const BlockSpan& span, int64_t first_block, int64_t block_count) {
  using BlockSearch = Search<kCodebook, Type>;
  const int64_t block_size = span.block_size;
  const std::byte* const source = span.source + first_block * block_size * 2;
  uint8_t* const codes = span.codes + first_block * block_size / 2;
  int16_t magnitudes[kBatchBlocksMax];
  alignas(64) int16_t boundaries[kBatchBlocksMax][16];
  for (int64_t i = 0; i < block_count; ++i) {
    magnitudes[i] = LargestMagnitude16Bit(source + i * block_size * 2, block_size);
  }
  for (int64_t i = 0; i < block_count; ++i) {
    const float scale = Type::Value(magnitudes[i]);
    span.scales[first_block + i] = scale;
    BlockSearch::Prepare(scale, boundaries[i]);
  }
  uint64_t first_non_finite = kAllFinite;
  for (int64_t i = 0; i < block_count; ++i) {
    if (magnitudes[i] >= Type::kScaleMin && magnitudes[i] <= Type::kScaleMax) [[likely]] {
      StoreCodes(BlockSearch(boundaries[i]), source + i * block_size * 2, block_size,
                 codes + i * block_size / 2);
    } else if (magnitudes[i] == 0) {
      std::memset(codes + i * block_size / 2, 0, static_cast<size_t>(block_size / 2));
    } else {
      const int64_t begin = (first_block + i) * block_size;
      first_non_finite =
          std::min(first_non_finite, QuantizeSlowly(span, begin, begin + block_size));
    }
  }
  return first_non_finite;
}

template <Codebook kCodebook, class Type>
uint64_t QuantizeBlocksOf(const BlockSpan& span) {
  const int64_t batch = std::max<int64_t>(1, kBatchElements / span.block_size);
  uint64_t first_non_finite = kAllFinite;
  for (int64_t block = 0; block < span.full_blocks(); block += batch) {
    const int64_t count = std::min(batch, span.full_blocks() - block);
    first_non_finite =
        std::min(first_non_finite, QuantizeBatch<kCodebook, Type>(span, block, count));
  }
  return first_non_finite;
}

uint64_t QuantizeFullBlocks16Bit(const BlockSpan& span) {
  if (span.type == FloatType::kF16 && !kRoundsToF16) {
    return QuantizeSlowly(span, 0, span.full_blocks() * span.block_size);
  }
  if (span.codebook == Codebook::kNf4) {  // From F16: BF16 has a file of its own.
    return QuantizeBlocksOf<Codebook::kNf4, F16>(span);
  }
  return span.type == FloatType::kBf16 ? QuantizeBlocksOf<Codebook::kFp4, Bf16>(span)
                                       : QuantizeBlocksOf<Codebook::kFp4, F16>(span);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(QuantizeFullBlocks16Bit);

uint64_t QuantizeFullBlocks16Bit(const BlockSpan& span) {
  return HWY_DYNAMIC_DISPATCH(QuantizeFullBlocks16Bit)(span);
}

}  // namespace nibble
#endif  // HWY_ONCE
