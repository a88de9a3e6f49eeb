#include "kernels/scale_quantize_ref.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>

#include "kernels/flush_subnormal.h"
#include "kernels/gpu_reciprocal.h"

namespace nibble {
namespace {

float CanonicalNan(float value) {
  return std::isnan(value) ? std::bit_cast<float>(kCanonicalNanBits) : value;
}

// bitsandbytes' own search, step by step, rather than kScaleThresholds, which is derived from it.
uint8_t ScaleCode(float x) {
  size_t pivot = 127;
  size_t lower = 0;
  size_t upper = 255;
  for (size_t step = 64; step > 0; step /= 2) {
    if (x > kScaleMap[pivot]) {
      lower = pivot;
      pivot += step;
    } else {
      upper = pivot;
      pivot -= step;
    }
  }
  size_t code = pivot;
  if (x > kScaleMap[pivot]) {
    code = x > (kScaleMap[upper] + kScaleMap[pivot]) * 0.5f ? upper : pivot;
  } else {
    code = x < (kScaleMap[lower] + kScaleMap[pivot]) * 0.5f ? lower : pivot;
  }
  return static_cast<uint8_t>(code);
}

}  // namespace

float MeanScaleRef(const float* scales, int64_t scale_count) {
  if (scale_count == 0) {
    return 0.0f;
  }
  std::array<double, kMeanLanes> lanes = {};
  for (int64_t index = 0; index < scale_count; ++index) {
    lanes[static_cast<size_t>(index % kMeanLanes)] += static_cast<double>(scales[index]);
  }
  for (size_t stride = kMeanLanes / 2; stride > 0; stride /= 2) {
    for (size_t lane = 0; lane < stride; ++lane) {
      lanes[lane] += lanes[lane + stride];
    }
  }
  return CanonicalNan(static_cast<float>(lanes[0] / static_cast<double>(scale_count)));
}

void QuantizeScalesRef(const float* scales, int64_t scale_count, float offset, uint8_t* scale_codes,
                       float* absmax2) {
  for (int64_t begin = 0; begin < scale_count; begin += kScaleBlockSize) {
    const int64_t end = std::min(begin + kScaleBlockSize, scale_count);
    // A short block is padded with zeros, which a full block of NaN has none of.
    float largest = end - begin < kScaleBlockSize ? 0.0f : -FLT_MAX;
    for (int64_t index = begin; index < end; ++index) {
      const float magnitude = std::fabs(scales[index] - offset);
      largest = magnitude > largest ? magnitude : largest;  // Ignores NaN, as CUDA's fmaxf does.
    }
    largest = FlushSubnormal(largest);
    absmax2[begin / kScaleBlockSize] = largest;
    const float reciprocal = GpuReciprocal(largest);
    for (int64_t index = begin; index < end; ++index) {
      const float difference = FlushSubnormal(scales[index] - offset);
      scale_codes[index] = ScaleCode(FlushSubnormal(difference * reciprocal));
    }
  }
}

void DequantizeScalesRef(const uint8_t* scale_codes, const float* absmax2, float offset,
                         const float* map, int64_t scale_count, float* scales) {
  for (int64_t index = 0; index < scale_count; ++index) {
    const float value = FlushSubnormal(map[scale_codes[index]]);
    const float largest = FlushSubnormal(absmax2[index / kScaleBlockSize]);
    const float product = FlushSubnormal(value * largest);
    scales[index] = CanonicalNan(product + offset);
  }
}

}  // namespace nibble
