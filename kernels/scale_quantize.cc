// Double quantization on the host, a 32nd of the source's bytes. Quantizing looks codes up instead
// of searching; the rest are plain loops that a compiler makes into vectors.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/scale_quantize.cc"

#include "kernels/scale_quantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/flush_subnormal.h"
#include "kernels/gpu_reciprocal.h"
#include "kernels/scale_buckets.h"
#include "kernels/scale_quantize_ref.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // The portable fallback is the reference.

void QuantizeFullBlocks(const float* scales, int64_t block_count, float offset,
                        uint8_t* scale_codes, float* absmax2) {
  QuantizeScalesRef(scales, block_count * kScaleBlockSize, offset, scale_codes, absmax2);
}

#else

namespace hn = hwy::HWY_NAMESPACE;
using Float = hn::CappedTag<float, 16>;
using Int32 = hn::RebindToSigned<Float>;
using VFloat = hn::Vec<Float>;
using VInt32 = hn::Vec<Int32>;

// The rest is for the reference.
constexpr float kAbsmax2Min = 0x1p-100f;  // What is flushed is below the least threshold, 2^-21.8.
constexpr float kAbsmax2Max = 0x1p126f;   // Larger ones, Inf and NaN have the reciprocal 0 or NaN.

// The bits of the largest |scale - offset|, NaN being larger than all.
HWY_INLINE int32_t LargestDifference(const float* scales, VFloat offset) {
  const Float d;
  const Int32 di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  VInt32 largest = hn::Zero(di);
  for (int64_t i = 0; i < kScaleBlockSize; i += lanes) {
    const VFloat difference = hn::Sub(hn::LoadU(d, scales + i), offset);
    largest = hn::Max(largest, hn::BitCast(di, hn::Abs(difference)));
  }
  return hn::GetLane(hn::MaxOfLanes(di, largest));
}

// Requires: x is within an ulp of [-1, 1].
HWY_INLINE VInt32 ScaleCodes(VFloat x) {
  const Float d;
  const Int32 di;
  const VInt32 magnitude = hn::Max(hn::BitCast(di, hn::Abs(x)), hn::Set(di, kScaleBucketMin));
  const VInt32 bucket =
      hn::ShiftRight<kScaleBucketShift>(hn::Sub(magnitude, hn::Set(di, kScaleBucketMin)));
  const VInt32 entry = hn::GatherIndex(di, kScaleBuckets.data(), bucket);
  const VInt32 place = hn::And(magnitude, hn::Set(di, (1 << kScaleBucketShift) - 1));
  const VInt32 threshold = hn::And(entry, hn::Set(di, (2 << kScaleBucketShift) - 1));
  const VInt32 above = hn::VecFromMask(di, hn::Gt(place, threshold));  // -1 or 0.
  const VInt32 code = hn::Sub(hn::ShiftRight<kScaleBucketShift + 1>(entry), above);
  // The map and its ties are symmetric about code 127, but for 1.
  const VInt32 mirrored = hn::Sub(hn::Set(di, 254), hn::Min(code, hn::Set(di, 254)));
  return hn::IfThenElse(hn::RebindMask(di, hn::Lt(x, hn::Zero(d))), mirrored, code);
}

void QuantizeFullBlocks(const float* scales, int64_t block_count, float offset,
                        uint8_t* scale_codes, float* absmax2) {
  const Float d;
  const hn::Rebind<uint8_t, Float> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const VFloat offsets = hn::Set(d, offset);
  for (int64_t block = 0; block < block_count; ++block) {
    const float largest = std::bit_cast<float>(LargestDifference(scales, offsets));
    if (largest >= kAbsmax2Min && largest <= kAbsmax2Max) [[likely]] {
      absmax2[block] = largest;
      const VFloat reciprocal = hn::Set(d, GpuReciprocal(largest));
      for (int64_t i = 0; i < kScaleBlockSize; i += lanes) {
        const VFloat difference = hn::Sub(hn::LoadU(d, scales + i), offsets);
        const VInt32 codes = ScaleCodes(hn::Mul(difference, reciprocal));
        hn::StoreU(hn::DemoteTo(d8, codes), d8, scale_codes + i);
      }
    } else {
      QuantizeScalesRef(scales, kScaleBlockSize, offset, scale_codes, absmax2 + block);
    }
    scales += kScaleBlockSize;
    scale_codes += kScaleBlockSize;
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(QuantizeFullBlocks);

// Rows of kMeanLanes scales at once, so that a lane is loaded and stored once for four.
constexpr int64_t kMeanRows = 4;

float MeanScale(const float* scales, int64_t scale_count) {
  if (scale_count == 0) {
    return 0.0f;
  }
  std::array<double, kMeanLanes> lanes = {};
  int64_t begin = 0;
  for (; begin + kMeanRows * kMeanLanes <= scale_count; begin += kMeanRows * kMeanLanes) {
    const float* const rows = scales + begin;
    for (int64_t i = 0; i < kMeanLanes; ++i) {
      double lane = lanes[static_cast<size_t>(i)];
      for (int64_t row = 0; row < kMeanRows; ++row) {
        lane += static_cast<double>(rows[row * kMeanLanes + i]);
      }
      lanes[static_cast<size_t>(i)] = lane;
    }
  }
  for (; begin < scale_count; ++begin) {
    lanes[static_cast<size_t>(begin % kMeanLanes)] += static_cast<double>(scales[begin]);
  }
  for (size_t stride = kMeanLanes / 2; stride > 0; stride /= 2) {
    for (size_t i = 0; i < stride; ++i) {
      lanes[i] += lanes[i + stride];
    }
  }
  const auto mean = static_cast<float>(lanes[0] / static_cast<double>(scale_count));
  return std::isnan(mean) ? std::bit_cast<float>(kCanonicalNanBits) : mean;
}

void QuantizeScales(const float* scales, int64_t scale_count, float offset, uint8_t* scale_codes,
                    float* absmax2) {
  const int64_t block_count = scale_count / kScaleBlockSize;
  HWY_DYNAMIC_DISPATCH(QuantizeFullBlocks)(scales, block_count, offset, scale_codes, absmax2);
  const int64_t done = block_count * kScaleBlockSize;
  QuantizeScalesRef(scales + done, scale_count - done, offset, scale_codes + done,
                    absmax2 + block_count);
}

void DequantizeScales(const uint8_t* scale_codes, const float* absmax2, float offset,
                      const float* map, int64_t scale_count, float* scales) {
  std::array<float, kScaleMapSize> values;
  std::transform(map, map + kScaleMapSize, values.begin(), FlushSubnormal);
  for (int64_t begin = 0; begin < scale_count; begin += kScaleBlockSize) {
    const int64_t count = std::min(kScaleBlockSize, scale_count - begin);
    const float largest = FlushSubnormal(absmax2[begin / kScaleBlockSize]);
    for (int64_t i = begin; i < begin + count; ++i) {
      scales[i] = values[scale_codes[i]];
    }
    for (int64_t i = begin; i < begin + count; ++i) {
      const float scale = FlushSubnormal(scales[i] * largest) + offset;
      scales[i] = scale == scale ? scale : std::bit_cast<float>(kCanonicalNanBits);
    }
  }
}

}  // namespace nibble
#endif  // HWY_ONCE
